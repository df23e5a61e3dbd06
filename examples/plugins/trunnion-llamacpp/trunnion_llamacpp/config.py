"""Define the settings; names are llama.cpp's own where it has them."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator
from trunnion import PluginConfig

CONTEXT_FIELDS: Final = (
    "n_ubatch",
    "n_threads_batch",
    "rope_scaling_type",
    "flash_attn_type",
    "rope_freq_base",
    "rope_freq_scale",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
    "yarn_orig_ctx",
    "offload_kqv",
    "op_offload",
    "swa_full",
)
"""Fields of ``llama_context_params`` that ``engine_kwargs`` passes on; the engine sets the others itself."""


class LlamaCppConfig(PluginConfig):
    """Configure llama.cpp. The KV cache is one pool of ``n_ctx`` tokens, which all sequences share."""

    n_ctx: int | None = Field(
        default=None,
        ge=256,
        le=2**30,
        description="Tokens in the KV cache, over all sequences, rounded up to 256s. Unset: 16384, or less where "
        "n_seq_max sequences of the model's context need less.",
    )
    n_seq_max: int = Field(default=16, ge=1, le=256, description="Sequences that run side by side; others wait.")
    n_batch: int = Field(
        default=512, ge=1, description="Tokens in one step at most; longer prompts are computed in pieces."
    )
    max_model_len: int | None = Field(
        default=None,
        ge=2,
        description="Context length in tokens, prompt and output; at most the model's and n_ctx. Unset: the lesser.",
    )
    n_threads: int | None = Field(
        default=None,
        ge=1,
        description="Compute threads, and the CPUs a replica asks for. Unset: OMP_NUM_THREADS, which Ray sets to the "
        "CPUs asked for (one); else all CPUs.",
    )
    n_gpu_layers: int = Field(
        default=0, ge=-1, description="Layers kept on the GPU, -1 for all; needs a GPU build of llama-cpp-python."
    )
    cache_type: Literal["f32", "f16", "q8_0"] = Field(
        default="f16", description="Type of keys and values in the cache."
    )
    prefix_cache: bool = Field(
        default=True, description="Keep what ended sequences left in the cache, for prompts that begin alike."
    )
    tokenizer: str | None = Field(
        default=None,
        description="Folder or Hub name of a Hugging Face tokenizer of the same model: the stages then template, "
        "tokenize and find tool calls. Unset: the file's own folder if it holds tokenizer.json with the same tokens. "
        "'gguf': always the tokenizer and chat template inside the file.",
    )
    chat_template: str | None = Field(
        default=None, description="Jinja chat template, or the path of one, in the place of the model's own."
    )
    adapters: dict[str, str] = Field(
        default_factory=dict,
        description="LoRA adapters, name to path, loaded at start: a GGUF file, or a folder in PEFT's format.",
    )
    adapter_turn_steps: int = Field(
        default=8,
        ge=1,
        description="Steps after which the running adapter (or the base model) lets another one that waits have its "
        "turn. A step never mixes adapters.",
    )
    seed: int | None = Field(default=None, description="Seed of the draws of requests that bring none of their own.")
    engine_kwargs: dict[str, int | float | bool] = Field(
        default_factory=dict,
        description="Further fields of llama_context_params by name, such as rope_freq_scale: "
        + ", ".join(CONTEXT_FIELDS),
    )

    @model_validator(mode="after")
    def _check_engine_kwargs(self) -> Self:
        for name in self.engine_kwargs:
            if name in type(self).model_fields:
                raise ValueError(f"engine_kwargs holds {name!r}, which is a setting of its own; move it out")
            if name not in CONTEXT_FIELDS:
                raise ValueError(f"engine_kwargs: {name!r} is none of {', '.join(CONTEXT_FIELDS)}")
        return self

    def model_post_init(self, _context: Any) -> None:
        """Refuse sizes that exclude each other."""
        if self.n_ctx is not None and self.max_model_len is not None and self.max_model_len > self.n_ctx:
            raise ValueError(f"max_model_len is {self.max_model_len}, more than the {self.n_ctx} tokens of n_ctx")
