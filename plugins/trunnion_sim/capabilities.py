"""State what the simulator can do, and narrow it to a configuration."""

from __future__ import annotations

from typing import Final

from trunnion import FEATURES, Capabilities, Support

from .config import SimConfig

CAPABILITIES: Final = Capabilities.of(
    yes=(
        "sampling.ignore_eos",
        "sampling.logprobs",
        "sampling.max_tokens",
        "sampling.min_p",
        "sampling.min_tokens",
        "sampling.n",
        "sampling.seed",
        "sampling.stop_token_ids",
        "sampling.temperature",
        "sampling.top_k",
        "sampling.top_p",
        "output_format.choice",
        "output_format.json_object",
        "output_format.json_schema",
        "output_format.regex",
        "adapter",
        "cache_salt",
        "parallel_tool_calls",
        "priority",
        "tool_choice",
        "tools",
    ),
    no=(
        "sampling.*",
        "output_format.grammar",
        "media.*",
        "detokenize",
        "handoff",
        "session",
        "tenant",
        "trace",
    ),
    prompts=("messages", "text", "token_ids"),
    protocols=(
        "embeds/1",
        "scores/1",
        "classifies/1",
        "transcribes/1",
        "hot_adapters/1",
        "resets_cache/1",
        "reports_load/1",
        "emits_kv_events/1",
        "probes_health/1",
    ),
    reasons={
        "sampling.stop": "a stage cuts the text at stop strings",
        "sampling.logit_bias": "its tokens are drawn by hash, not by logits",
        "sampling.presence_penalty": "its tokens do not depend on those before them",
        "sampling.frequency_penalty": "its tokens do not depend on those before them",
        "sampling.repetition_penalty": "its tokens do not depend on those before them",
        "sampling.prompt_logprobs": "it has no opinion of the prompt",
        "output_format.grammar": "it has no parser for grammars",
        "media.image": "it looks at no media",
        "media.audio": "it looks at no media",
        "media.video": "it looks at no media",
    },
)
_STAGES_OWN: Final = ("tools", "tool_choice", "parallel_tool_calls")
"""Left to the stages where the engine speaks token ids alone."""


def narrowed(config: SimConfig) -> Capabilities:
    """Return what the engine can do with these settings."""
    features = dict(CAPABILITIES.features)
    reasons = dict(CAPABILITIES.reasons)
    protocols = set(CAPABILITIES.protocols)
    if config.tokenizer is not None:
        features["detokenize"] = Support.YES
        features.update(dict.fromkeys(_STAGES_OWN, Support.NO))
    if config.scheduling_policy == "fcfs":
        features["priority"] = Support.NO
        reasons["priority"] = "it takes scheduling_policy='priority'"
    if not config.kv_events:
        protocols.discard("emits_kv_events/1")
    for name in config.unsupported:
        left_out = [f for f in FEATURES if f == name or (name.endswith(".*") and f.startswith(name[:-1]))]
        features.update(dict.fromkeys(left_out, Support.NO))
        reasons.update(dict.fromkeys(left_out, "its setting 'unsupported' names it"))
        protocols.discard(name)
    return Capabilities(
        features=features,
        prompts=("token_ids",) if config.tokenizer is not None else CAPABILITIES.prompts,
        protocols=frozenset(protocols),
        reasons=reasons,
    )
