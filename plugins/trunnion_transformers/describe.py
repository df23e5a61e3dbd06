"""Describe a started engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trunnion.capabilities import Capabilities
from trunnion.engine import EngineInfo, TokenizerRef

from .capabilities import LACKING, for_encoding, for_generation
from .config import TransformersConfig
from .loading import Loaded

if TYPE_CHECKING:
    from .bring_up import Runner


def describe(
    model: str, loaded: Loaded, runner: Runner, config: TransformersConfig, *, context: int, adapters: tuple[str, ...]
) -> EngineInfo:
    """Return what the pipeline and the adapters need to know."""
    import torch
    import transformers

    tokenizer = None
    if loaded.tokenizer is not None:
        tokenizer = TokenizerRef(
            path=config.tokenizer or loaded.path,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )
    return EngineInfo(
        engine="transformers",
        model=model,
        context_length=context,
        tokenizer=tokenizer,
        concurrency=runner.max_requests,
        capabilities=_capabilities(runner, tokenizer=tokenizer is not None),
        adapters=adapters,
        library=f"transformers {transformers.__version__}",
        emits_text=False,
        details={
            "runner": loaded.kind,
            "device": loaded.device,
            "dtype": loaded.dtype,
            "attention": str(loaded.model.config._attn_implementation),  # noqa: SLF001 - it has no other name
            "threads": config.threads or torch.get_num_threads(),
            **_details(loaded, runner),
        },
    )


def _capabilities(runner: Runner, *, tokenizer: bool) -> Capabilities:
    if runner.kind == "generate":
        return for_generation(tokenizer=tokenizer)
    if runner.kind == "embed":
        return for_encoding("embeds", LACKING["embed"], tokenizer=tokenizer)
    if runner.scores:
        return for_encoding("is a cross-encoder", LACKING["score"], tokenizer=tokenizer)
    return for_encoding("classifies", LACKING["classify"], tokenizer=tokenizer)


def _details(loaded: Loaded, runner: Runner) -> dict[str, Any]:
    if runner.kind == "generate":
        return {**runner.details, "default_temperature": loaded.defaults.temperature}
    if runner.kind == "classify":
        return {"labels": list(runner.labels)}
    return {"width": runner.width, "pooling": runner.pooling.mode, "normalize": runner.pooling.normalize}
