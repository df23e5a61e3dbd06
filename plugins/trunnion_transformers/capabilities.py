"""State what the engine can do at most; ``start()`` narrows it for the model at hand.

The library honours temperature, top_k and top_p per request, and only while every request of a step is drawn. This
engine puts a sampler of its own in the place the library has for logits processors, see :mod:`.sampler`.
"""

from __future__ import annotations

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
    protocols=("embeds/1", "scores/1", "classifies/1", "hot_adapters/1", "probes_health/1", "reports_load/1"),
    reasons={
        "sampling.stop": _STAGES,
        "sampling.include_stop_str_in_output": _STAGES,
        "sampling.prompt_logprobs": "continuous batching computes the logits of the last prompt token alone",
        "tools": "tool calls are the stages' work",
        "tool_choice": "tool calls are the stages' work",
        "parallel_tool_calls": "tool calls are the stages' work",
        "transcribes/1": "speech recognition models are not mounted",
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
    bound = _lowered(_POOLING, "the model generates")
    return bound if tokenizer else replace(bound, prompts=("token_ids",))


def for_encoding(does: str, lacking: frozenset[str], *, tokenizer: bool) -> Capabilities:
    """Return what an encoder can do that, say, ``embeds``, but for protocols that it lacks.

    Without a tokenizer it takes token ids alone, and can score no texts.
    """
    why = f"the model {does}"
    missing = lacking | {"hot_adapters/1"} | (frozenset() if tokenizer else {"scores/1"})
    bound = _lowered(missing, why)
    return replace(
        bound,
        features=dict.fromkeys(FEATURES, Support.NO),
        reasons={**bound.reasons, **dict.fromkeys(FEATURES, f"{why}, it does not generate")},
        prompts=("token_ids", "text") if tokenizer else ("token_ids",),
    )


_POOLING: Final = frozenset({"embeds/1", "scores/1", "classifies/1"})
LACKING: Final = {
    "embed": frozenset({"classifies/1"}),
    "classify": frozenset({"embeds/1", "scores/1"}),
    "score": frozenset({"embeds/1", "classifies/1"}),
}
"""What an embedding model, a classifier and a cross-encoder do not do."""


def _lowered(protocols: frozenset[str], why: str) -> Capabilities:
    return replace(
        UPPER_BOUND,
        protocols=UPPER_BOUND.protocols - protocols,
        reasons={**UPPER_BOUND.reasons, **dict.fromkeys(protocols, why)},
    )
