"""State what the engine can do at most; ``start()`` narrows it by whether the stages have a tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from trunnion import Capabilities

_STAGES: Final = "the stages' work, which needs the setting tokenizer: a Hugging Face tokenizer of the same model"

UPPER_BOUND: Final = Capabilities.of(
    yes=("sampling.*", "output_format.*", "adapter", "priority", "cache_salt", "detokenize"),
    no=(
        "sampling.stop",
        "sampling.include_stop_str_in_output",
        "sampling.prompt_logprobs",
        "output_format.regex",
        "media.*",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "session",
        "tenant",
        "trace",
        "handoff",
    ),
    prompts=("messages", "text", "token_ids"),
    protocols=("hot_adapters/1", "probes_health/1", "reports_load/1", "resets_cache/1"),
    reasons={
        "sampling.stop": "a stage does it",
        "sampling.include_stop_str_in_output": "a stage does it",
        "sampling.prompt_logprobs": "logits are computed for the last prompt token alone",
        "output_format.regex": "llama.cpp takes grammars; write the expression as one",
        "tools": _STAGES,
        "tool_choice": _STAGES,
        "parallel_tool_calls": _STAGES,
        "media.image": "the engine loads no projector",
        "media.audio": "the engine loads no projector",
        "media.video": "the engine loads no projector",
        "handoff": "a KV cache is not handed over",
        "session": "routers alone read it",
        "tenant": "hooks alone read it",
        "trace": "the library sends no traces",
    },
)


def capabilities(*, tokenizer: bool) -> Capabilities:
    """Return what holds: with a tokenizer the stages template and tokenize, else the engine does, by the GGUF file."""
    return replace(UPPER_BOUND, prompts=("token_ids", "text")) if tokenizer else UPPER_BOUND
