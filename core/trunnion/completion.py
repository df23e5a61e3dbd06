"""Collect the deltas of a request into one completion."""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from .errors import InternalError
from .events import ChoiceDelta, FinishReason, GenerateEvent, TokenLogprob, Usage


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """Hold one whole tool call; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True, kw_only=True)
class CompletionChoice:
    """Hold one whole choice."""

    index: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


@dataclass(slots=True, kw_only=True)
class Completion:
    """Hold everything a request produced; choices in the order of their index."""

    choices: list[CompletionChoice] = field(default_factory=list)
    usage: Usage | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    handoff: Any = None

    @property
    def text(self) -> str:
        """Return the text of the first choice."""
        return self.choices[0].text if self.choices else ""

    def add(self, event: GenerateEvent) -> None:
        """Append one event's deltas."""
        for delta in event.choices:
            while len(self.choices) <= delta.index:
                self.choices.append(CompletionChoice(index=len(self.choices)))
            _append(self.choices[delta.index], delta)
        if event.prompt_logprobs is not None:
            self.prompt_logprobs = event.prompt_logprobs
        if event.usage is not None:
            self.usage = event.usage
        if event.handoff is not None:
            self.handoff = event.handoff


def _append(choice: CompletionChoice, delta: ChoiceDelta) -> None:
    choice.text += delta.text
    choice.token_ids.extend(delta.token_ids)
    choice.reasoning += delta.reasoning
    for call in delta.tool_calls:
        while len(choice.tool_calls) <= call.index:
            choice.tool_calls.append(ToolCall(id="", name=""))
        whole = choice.tool_calls[call.index]
        whole.id = call.id or whole.id
        whole.name = call.name or whole.name
        whole.arguments += call.arguments
    if delta.logprobs is not None:
        choice.logprobs = [*(choice.logprobs or ()), *delta.logprobs]
    if delta.finish_reason is not None:
        choice.finish_reason = delta.finish_reason
        choice.stop_reason = delta.stop_reason


async def collect(events: AsyncIterable[GenerateEvent]) -> Completion:
    """Drain a stream into a completion, closing it in any case.

    Raises:
        InternalError: The stream ended without its terminal event (the one with usage).
    """
    completion = Completion()
    if hasattr(events, "aclose"):
        async with aclosing(events):  # type: ignore[type-var]
            async for event in events:
                completion.add(event)
    else:
        async for event in events:
            completion.add(event)
    if completion.usage is None:
        raise InternalError("the engine's stream ended without its terminal event; the answer may be cut short")
    return completion
