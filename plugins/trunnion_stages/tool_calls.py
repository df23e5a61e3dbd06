"""Find tool calls in a model's text."""

from __future__ import annotations

from collections.abc import Sequence

from trunnion.events import ChoiceDelta, GenerateEvent
from trunnion.requests import GenerateRequest
from trunnion.stage import StageContext

from ._calls import Found, MakeParser, Parser
from ._choice import tool_choice
from ._hermes import HermesParser
from ._json_calls import JsonParser
from ._rebuild import with_choices
from .config import ToolCallsConfig


class ToolCallsStage:
    """Move calls out of the text of requests with tools, and into ``ChoiceDelta.tool_calls``."""

    def __init__(self, context: StageContext, config: ToolCallsConfig) -> None:  # noqa: ARG002 - the plugin's seam
        """Take the format from the config; the context is not needed."""
        self._config = config

    def open(self, request: GenerateRequest) -> ToolCalls | None:
        """Return a parser; None if the request has no tools or forbids calls.

        Raises:
            InvalidArgument: The tool choice is malformed or names no tool.
        """
        mode, name = tool_choice(request)
        if mode == "none":
            return None
        start, end = self._config.start, self._config.end

        def tagged() -> HermesParser:
            return HermesParser(start, end)

        def bare() -> JsonParser:
            return JsonParser(name, tagged)

        forced = mode in ("required", "named")
        return ToolCalls(
            bare if forced or self._config.format == "json" else tagged,
            limit=1 if request.parallel_tool_calls is False else None,
        )


class ToolCalls:
    """Parse one request's choices, each by itself.

    A choice that called something and would have stopped finishes with "tool_calls"; one that ran into its length
    keeps "length", since its last call may be cut off. With ``parallel_tool_calls=False`` calls after the first are
    dropped.
    """

    __slots__ = ("_choices", "_limit", "_make", "done")

    def __init__(self, make: MakeParser, *, limit: int | None) -> None:
        self.done = False
        self._make = make
        self._limit = limit
        self._choices: dict[int, tuple[Parser, Found]] = {}

    def feed(self, event: GenerateEvent) -> Sequence[GenerateEvent]:
        """Return the event with calls and text apart."""
        return (with_choices(event, [self._delta(choice) for choice in event.choices]),)

    def finish(self) -> Sequence[GenerateEvent]:
        """Return what was held back for choices that never finished."""
        rest = []
        for index, (parser, found) in self._choices.items():
            parser.finish(found)
            text, calls = found.take()
            if text or calls:
                rest.append(ChoiceDelta(index=index, text=text, tool_calls=calls))
        self._choices.clear()
        return (GenerateEvent(choices=tuple(rest)),) if rest else ()

    def _delta(self, delta: ChoiceDelta) -> ChoiceDelta:
        reason = delta.finish_reason
        if delta.tool_calls or (not delta.text and reason is None):
            return delta
        state = self._choices.get(delta.index)
        if state is None:
            state = self._choices[delta.index] = (self._make(), Found(self._limit))
        parser, found = state
        if delta.text:
            parser.feed(delta.text, found)
        if reason is not None:
            parser.finish(found)
            del self._choices[delta.index]
            if found.count and reason == "stop":
                reason = "tool_calls"
        text, calls = found.take()
        if text == delta.text and not calls and reason == delta.finish_reason:
            return delta
        return ChoiceDelta(
            index=delta.index,
            text=text,
            token_ids=delta.token_ids,
            reasoning=delta.reasoning,
            tool_calls=calls,
            logprobs=delta.logprobs,
            finish_reason=reason,
            stop_reason=delta.stop_reason,
        )
