"""Define what an engine yields: deltas, never cumulative.

``finish_reason`` comes once per choice, ``usage`` once per request on the very last event. A failure is an exception,
never a finish reason. Many tokens may ride on one event: cost is per event, so engines coalesce by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """Give one token with its natural-log probability; ``top`` lists the alternatives, likeliest first."""

    token_id: int
    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """Give a piece of a tool call: ``id`` and ``name`` on its first piece, then parts of the JSON arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceDelta:
    """Give what is new for one choice since its last delta.

    ``stop_reason`` is the stop string or stop token id that ended it; None for EOS and for length. ``token_ids``
    holds the token that ended it (EOS, a stop token) and usage counts it; ``text`` does not.
    """

    index: int = 0
    text: str = ""
    token_ids: Sequence[int] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Count tokens: prompt and cached once per request, completion and reasoning summed over its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Return prompt plus completion tokens."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateEvent:
    """Carry deltas of one or more choices; the event with ``usage`` is the last one of its request.

    A terminal event without choices is legal. ``prompt_logprobs`` (one entry per prompt token, None for the first)
    come on the first event that has them. ``prompt_tokens`` may come with the first event: an engine that tokenizes by
    itself tells so what a request cost that a stage ends before the engine does.
    """

    choices: tuple[ChoiceDelta, ...] = ()
    usage: Usage | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    handoff: Mapping[str, Any] | None = None
    prompt_tokens: int | None = None
