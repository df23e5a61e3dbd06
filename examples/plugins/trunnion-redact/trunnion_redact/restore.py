"""Put back into an answer what was masked in its request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from trunnion import ChoiceDelta, GenerateEvent, GenerateRequest, NoConfig, StageContext, ToolCallDelta

from .hooks import NOTE
from .mask import Masked

_TEXT: Final = -1
_REASONING: Final = -2


class RestoreStage:
    """Watch the answers to requests in which something was masked."""

    def __init__(self, context: StageContext, config: NoConfig) -> None:
        """Take nothing: what there is to know comes with each request."""

    def open(self, request: GenerateRequest) -> Restorer | None:
        """Return a restorer; None if nothing was masked."""
        masked = (request.notes or {}).get(NOTE)
        return Restorer(masked.values) if isinstance(masked, Masked) and masked.values else None


class _Spellings:
    """Replace placeholders, in the ways they are spelt in one kind of text."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._firsts = frozenset(spelling[0] for spelling in values)
        self._longest = max(map(len, values))
        self._pattern = re.compile("|".join(map(re.escape, values)))

    def replace(self, text: str) -> str:
        """Return the text with every whole placeholder replaced."""
        return self._pattern.sub(lambda match: self._values[match.group()], text)

    def held(self, text: str) -> int:
        """Return how many characters at the end may be the beginning of a placeholder."""
        size = len(text)
        for start in range(max(size - self._longest + 1, 0), size):
            if text[start] in self._firsts:
                rest = text[start:]
                if any(spelling.startswith(rest) for spelling in self._values):
                    return size - start
        return 0


class Restorer:
    """Restore one request's choices, each by itself, however a placeholder is cut.

    Only what may be the beginning of a placeholder is held back, and nothing once its choice has finished. Token ids
    and logprobs pass as they are: they belong to what the engine wrote, which is the placeholder.
    """

    __slots__ = ("_arguments", "_held", "_text", "done")

    def __init__(self, values: Mapping[str, str]) -> None:
        self.done = False
        self._text = _Spellings(values)
        quoted = {made: json.dumps(value, ensure_ascii=False)[1:-1] for made, value in values.items()}
        escaped = {made.replace("<", "\\u003c").replace(">", "\\u003e"): value for made, value in quoted.items()}
        self._arguments = _Spellings(quoted | escaped)  # some servers escape < and > in JSON
        self._held: dict[int, dict[int, str]] = {}

    def feed(self, event: GenerateEvent) -> Sequence[GenerateEvent]:
        """Return the event with values for placeholders."""
        if not event.choices:
            return (event,)
        return (replace(event, choices=tuple(map(self._delta, event.choices))),)

    def finish(self) -> Sequence[GenerateEvent]:
        """Return what was held back for choices that never finished."""
        rest = [self._flushed(ChoiceDelta(index=index)) for index in sorted(self._held) if self._held[index]]
        self._held.clear()
        return (GenerateEvent(choices=tuple(rest)),) if rest else ()

    def _delta(self, delta: ChoiceDelta) -> ChoiceDelta:
        held = self._held.setdefault(delta.index, {})
        last = delta.finish_reason is not None
        stop = delta.stop_reason
        made = replace(
            delta,
            text=self._piece(held, _TEXT, delta.text, last=last),
            reasoning=self._piece(held, _REASONING, delta.reasoning, last=last),
            tool_calls=tuple(self._call(held, call) for call in delta.tool_calls),
            stop_reason=self._text.replace(stop) if isinstance(stop, str) else stop,
        )
        return self._flushed(made) if last else made

    def _call(self, held: dict[int, str], call: ToolCallDelta) -> ToolCallDelta:
        return replace(call, arguments=self._piece(held, call.index, call.arguments, last=False))

    def _piece(self, held: dict[int, str], channel: int, new: str, *, last: bool) -> str:
        """Return what may go out of a channel: text, reasoning, or the arguments of the call of that index."""
        if not new and not last:
            return ""
        spellings = self._arguments if channel >= 0 else self._text
        text = spellings.replace(held.pop(channel, "") + new)
        keep = 0 if last else spellings.held(text)
        if keep:
            held[channel] = text[-keep:]
            text = text[:-keep]
        return text

    def _flushed(self, delta: ChoiceDelta) -> ChoiceDelta:
        """Return the delta with all that its choice holds back."""
        held = self._held.get(delta.index, {})
        calls = tuple(ToolCallDelta(index=i, arguments=held[i]) for i in sorted(held) if i >= 0)
        made = replace(
            delta,
            text=delta.text + held.get(_TEXT, ""),
            reasoning=delta.reasoning + held.get(_REASONING, ""),
            tool_calls=(*delta.tool_calls, *calls),
        )
        held.clear()
        return made
