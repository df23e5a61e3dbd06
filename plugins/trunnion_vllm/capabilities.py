"""State what vLLM can do at most; ``start()`` narrows it for the model and the configuration at hand."""

from __future__ import annotations

from typing import Final

from trunnion.capabilities import Capabilities

UPPER_BOUND: Final = Capabilities.of(
    yes=("sampling.*", "output_format.*", "detokenize", "adapter", "priority", "cache_salt", "trace"),
    no=("media.*", "tools", "tool_choice", "parallel_tool_calls", "session", "tenant", "handoff"),
    prompts=("token_ids", "text"),
    protocols=("embeds/1", "hot_adapters/1", "probes_health/1", "reports_load/1"),
    reasons={
        "media.image": "media inputs are not mounted yet",
        "media.audio": "media inputs are not mounted yet",
        "media.video": "media inputs are not mounted yet",
        "tools": "tool calls are the stages' work",
        "tool_choice": "tool calls are the stages' work",
        "handoff": "disaggregated prefill is not mounted yet",
    },
)
