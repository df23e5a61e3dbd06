"""Part what a model thinks from what it says."""

from __future__ import annotations

from collections.abc import Sequence

from trunnion.events import ChoiceDelta, GenerateEvent
from trunnion.requests import GenerateRequest, MessagesPrompt
from trunnion.stage import StageContext

from ._hold import hold_from
from ._rebuild import with_choices
from .config import ReasoningConfig


class ReasoningStage:
    """Move text between the tags into ``ChoiceDelta.reasoning``; the tags themselves go."""

    def __init__(self, context: StageContext, config: ReasoningConfig) -> None:  # noqa: ARG002 - the plugin's seam
        """Take the tags from the config; the context is not needed."""
        self._config = config

    def open(self, request: GenerateRequest) -> Reasoning:
        """Return a splitter."""
        inside = self._config.starts_inside
        if inside is None:
            prompt = request.prompt
            text = None if isinstance(prompt, MessagesPrompt) else prompt.text
            inside = bool(text) and str(text).rstrip().endswith(self._config.start)
        return Reasoning(self._config.start, self._config.end, inside=inside)


class _Choice:
    """Hold where one choice stands and what it holds back."""

    __slots__ = ("held", "inside")

    def __init__(self, *, inside: bool) -> None:
        self.inside = inside
        self.held = ""


class Reasoning:
    """Split the text of one request's choices; holds back only what could be the beginning of a tag."""

    __slots__ = ("_choices", "_end", "_inside", "_start", "done")

    def __init__(self, start: str, end: str, *, inside: bool) -> None:
        self.done = False
        self._start = start
        self._end = end
        self._inside = inside
        self._choices: dict[int, _Choice] = {}

    def feed(self, event: GenerateEvent) -> Sequence[GenerateEvent]:
        """Return the event with reasoning and text apart."""
        return (with_choices(event, [self._delta(choice) for choice in event.choices]),)

    def finish(self) -> Sequence[GenerateEvent]:
        """Return what was held back for choices that never finished."""
        rest = []
        for index, choice in self._choices.items():
            text, reasoning = self._split(choice, "", last=True)
            if text or reasoning:
                rest.append(ChoiceDelta(index=index, text=text, reasoning=reasoning))
        return (GenerateEvent(choices=tuple(rest)),) if rest else ()

    def _delta(self, delta: ChoiceDelta) -> ChoiceDelta:
        choice = self._choices.get(delta.index)
        if choice is None:
            choice = self._choices[delta.index] = _Choice(inside=self._inside)
        last = delta.finish_reason is not None
        if not delta.text and not (last and choice.held):
            return delta
        text, reasoning = self._split(choice, delta.text, last=last)
        if text == delta.text and not reasoning:
            return delta
        return ChoiceDelta(
            index=delta.index,
            text=text,
            token_ids=delta.token_ids,
            reasoning=delta.reasoning + reasoning,
            tool_calls=delta.tool_calls,
            logprobs=delta.logprobs,
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
        )

    def _split(self, choice: _Choice, new: str, *, last: bool) -> tuple[str, str]:
        rest, out = choice.held + new, ["", ""]
        while True:
            tag = self._end if choice.inside else self._start
            before, found, after = rest.partition(tag)
            if not found:
                break
            out[choice.inside] += before
            choice.inside = not choice.inside
            rest = after
        keep = len(rest) if last else hold_from(rest, (tag,), frozenset(tag[0]), len(tag))
        out[choice.inside] += rest[:keep]
        choice.held = rest[keep:]
        return out[0], out[1]
