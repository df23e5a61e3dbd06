"""State what the engine can do at most; ``start()`` narrows it for the model at hand.

The library honours temperature, top_k and top_p per request, and only while every request of a step is drawn. This
engine puts a sampler of its own in the place the library has for logits processors, see :mod:`.sampler`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from trunnion.capabilities import FEATURES, MEDIA_FEATURES, OUTPUT_FORMATS, Capabilities, Support

_STAGES: Final = "the stages' work; the engine makes token ids alone"

UPPER_BOUND: Final = Capabilities.of(
    yes=("sampling.*", "detokenize", "adapter", "priority", "cache_salt"),
    no=(
        "sampling.stop",
        "sampling.include_stop_str_in_output",
        "sampling.prompt_logprobs",
        "output_format.*",
        "media.*",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "session",
        "tenant",
        "trace",
        "handoff",
    ),
    prompts=("token_ids", "text"),
    protocols=("embeds/1", "hot_adapters/1", "probes_health/1", "reports_load/1"),
    reasons={
        "sampling.stop": _STAGES,
        "sampling.include_stop_str_in_output": _STAGES,
        "sampling.prompt_logprobs": "continuous batching computes the logits of the last prompt token alone",
        "tools": "tool calls are the stages' work",
        "tool_choice": "tool calls are the stages' work",
        "parallel_tool_calls": "tool calls are the stages' work",
        "handoff": "the library cannot hand a KV cache over",
        "session": "there is one engine here, routers alone read it",
        "tenant": "hooks alone read it",
        "trace": "the library sends no traces",
        **dict.fromkeys(OUTPUT_FORMATS, "the library's continuous batching has no guided decoding"),
        **dict.fromkeys(MEDIA_FEATURES, "the library's continuous batching takes token ids alone"),
    },
)


def for_generation(*, tokenizer: bool) -> Capabilities:
    """Return what a causal model can do; without a tokenizer it takes token ids alone."""
    bound = replace(UPPER_BOUND, protocols=UPPER_BOUND.protocols - {"embeds/1"})
    return bound if tokenizer else replace(bound, prompts=("token_ids",))


def for_embedding(*, tokenizer: bool) -> Capabilities:
    """Return what an encoder can do."""
    why: Mapping[str, str] = dict.fromkeys(FEATURES, "the model embeds, it does not generate")
    return replace(
        UPPER_BOUND,
        features=dict.fromkeys(FEATURES, Support.NO),
        reasons=why,
        prompts=("token_ids", "text") if tokenizer else ("token_ids",),
        protocols=UPPER_BOUND.protocols - {"hot_adapters/1"},
    )
