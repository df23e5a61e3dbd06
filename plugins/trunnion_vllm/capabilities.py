"""State what vLLM can do at most; ``start()`` narrows it for the model and the configuration at hand."""

from __future__ import annotations

from typing import Final

from trunnion.capabilities import Capabilities

UPPER_BOUND: Final = Capabilities.of(
    yes=("sampling.*", "output_format.*", "media.*", "detokenize", "adapter", "priority", "cache_salt", "trace"),
    no=("tools", "tool_choice", "parallel_tool_calls", "session", "tenant", "handoff"),
    prompts=("token_ids", "text"),
    # The model's own renderer places media, so messages with them go to it whole.
    media_prompts=("messages", "text", "token_ids"),
    protocols=(
        "embeds/1",
        "scores/1",
        "classifies/1",
        "hot_adapters/1",
        "sleeps/1",
        "resets_cache/1",
        "reports_load/1",
        "emits_kv_events/1",
        "probes_health/1",
    ),
    reasons={
        "tools": "tool calls are the stages' work",
        "tool_choice": "tool calls are the stages' work",
        "transcribes/1": "not mounted; vLLM's own server transcribes, behind the openai engine",
        "handoff": "disaggregated prefill is not mounted yet",
    },
)
