"""Configure the transformers engine: named settings, and ``engine_kwargs`` for the rest of the library's own."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from trunnion.plugin import PluginConfig

from .engine_args import OURS, known_engine_args, unknown_args_message

NAMED: Final = ("page_size", "num_blocks", "max_batch_tokens", "max_requests_per_batch")
"""Fields that are the library's ContinuousBatchingConfig's of the same name."""


class TransformersConfig(PluginConfig):
    """Configure transformers. Cache sizes left unset are chosen for the device, see :mod:`.sizes`."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="What the model runs on. auto: cuda where torch sees a GPU, else cpu. On a cluster whose head has "
        "no GPU name it, since placement is decided there.",
    )
    runner: Literal["auto", "generate", "embed", "classify"] = Field(
        default="auto",
        description="generate for completions, embed for embeddings and their cosines as scores, classify for "
        "sequence classification and cross-encoders. auto: classify for a model that was made for it, embed for "
        "another encoder and for a folder that sentence-transformers wrote, generate for a causal model.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Type of weights and activations. auto: the checkpoint's on a GPU; on a CPU float32 for what the "
        "checkpoint holds in float16, else the checkpoint's.",
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = Field(
        default="auto",
        description="Attention implementation. auto: flash attention on a GPU where it is installed, else what the "
        "library picks for the model (sdpa, or eager where the model lacks it); on a CPU one of our own in place of "
        "sdpa, whose cost grows with the requests in a step and not with their square, unless the model's layers look "
        "at a sliding window.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="torch's compute threads, and the CPUs a replica asks for. Unset leaves torch's own (all cores, or "
        "OMP_NUM_THREADS, which Ray sets to the CPUs asked for: one). Applies to the whole process.",
    )
    max_model_len: int | None = Field(
        default=None,
        ge=2,
        description="Context length in tokens, prompt and output; at most the model's, and what the cache holds. "
        "Unset: the lesser of the two.",
    )
    page_size: int | None = Field(default=None, ge=4, description="Tokens in a cache block. Unset: 32 on a CPU.")
    num_blocks: int | None = Field(
        default=None,
        ge=1,
        description="Blocks in the KV cache. Unset on a CPU: 16384 tokens' worth, less where free memory is scarce; on "
        "a GPU as many as fit. The library is slow with a large cache on a CPU.",
    )
    max_batch_tokens: int | None = Field(
        default=None, ge=1, description="Tokens in one step at most; longer prompts are split. Unset: 512 on a CPU."
    )
    max_requests_per_batch: int | None = Field(
        default=None,
        ge=1,
        description="Requests in one step at most. Unset: 128 on a CPU, or 16 where attention is the library's own "
        "(whose cost is their square there); 256 on a GPU.",
    )
    adapters: dict[str, str] = Field(
        default_factory=dict, description="LoRA adapters, name to path, loaded at start through peft."
    )
    adapter_turn_steps: int = Field(
        default=8,
        ge=1,
        description="Steps after which the running adapter (or the base model) lets another one that waits have its "
        "turn. A step never mixes adapters.",
    )
    seed: int | None = Field(default=None, description="Seed of the draws of requests that bring none of their own.")
    tokenizer: str | None = Field(default=None, description="Path or name of the tokenizer, if not the model's.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of the model on the Hub.")
    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model.")
    pooling: Literal["auto", "mean", "cls", "last", "max"] = Field(
        default="auto",
        description="How an encoder's token vectors become one. auto: what the model's sentence-transformers files "
        "say, mean where there are none.",
    )
    normalize: bool | None = Field(
        default=None,
        description="Scale embeddings to length 1. Unset: as the model's sentence-transformers files say, true where "
        "there are none.",
    )
    gc_freeze: bool = Field(
        default=True,
        description="Collect and freeze the garbage collector's heap once started, until stop: a full collection over "
        "torch stalls the event loop. Applies to the whole process.",
    )
    engine_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Any other field of the library's ContinuousBatchingConfig, such as safety_margin, as JSON values.",
    )

    @model_validator(mode="after")
    def _check_engine_kwargs(self) -> Self:
        for name in self.engine_kwargs:
            if name in type(self).model_fields:
                raise ValueError(f"engine_kwargs holds {name!r}, which is a setting of its own; move it out")
            if why := OURS.get(name):
                raise ValueError(f"engine_kwargs may not hold {name!r}: {why}")
        if (known := known_engine_args()) and (wrong := unknown_args_message(self.engine_kwargs, known)):
            raise ValueError(wrong)
        return self
