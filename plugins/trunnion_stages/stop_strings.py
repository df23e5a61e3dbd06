"""End a choice where its text holds a stop string, for engines that cannot."""

from __future__ import annotations

from collections.abc import Sequence

from trunnion.events import ChoiceDelta, FinishReason, GenerateEvent
from trunnion.plugin import NoConfig
from trunnion.requests import GenerateRequest, SamplingParams
from trunnion.stage import StageContext

from ._hold import hold_from
from ._rebuild import with_choices, with_text


class StopStringsStage:
    """Watch the text of requests that have stop strings."""

    def __init__(self, context: StageContext, config: NoConfig) -> None:
        """Take nothing: stop strings need neither tokenizer nor settings."""

    def open(self, request: GenerateRequest) -> StopStrings | None:
        """Return a watcher; None if the request has no stop strings."""
        return StopStrings(request.sampling) if request.sampling.stop else None


class _Choice:
    """Hold the last text of one choice: held back, or, when stop strings are part of the output, gone already."""

    __slots__ = ("finished", "text", "tokens")

    def __init__(self) -> None:
        self.finished = False
        self.text = ""
        self.tokens = 0


class StopStrings:
    """Watch one request's choices.

    Only characters that could be the beginning of a stop string are held back. The stop string that is complete first
    ends its choice, whatever the engine says later; ``done`` is set when all choices ended, unless the usage came
    with the same event. The usage of a request that is cut short is the pipeline's to make: it alone sees every token.
    Token ids and logprobs of the event that holds the match pass whole, since their share of the text is not known.

    Text of the first ``min_tokens`` tokens may begin a match but not complete one, as in vLLM; an event that crosses
    that limit is searched whole.
    """

    __slots__ = ("_choices", "_ended", "_firsts", "_include", "_longest", "_min_tokens", "_n", "_stops", "done")

    def __init__(self, sampling: SamplingParams) -> None:
        self.done = False
        self._stops = sampling.stop
        self._firsts = frozenset(stop[0] for stop in sampling.stop)
        self._longest = max(len(stop) for stop in sampling.stop)
        self._include = sampling.include_stop_str_in_output
        self._min_tokens = sampling.min_tokens or 0
        self._n = sampling.n
        self._ended = 0
        self._choices: dict[int, _Choice] = {}

    def feed(self, event: GenerateEvent) -> Sequence[GenerateEvent]:
        """Return the event without what is held back or cut off."""
        if not event.choices:
            return (event,)
        made = [delta for choice in event.choices if (delta := self._delta(choice)) is not None]
        if self._ended >= self._n and event.usage is None:
            self.done = True
        if not made and event.usage is None and event.prompt_logprobs is None and event.handoff is None:
            return ()
        return (with_choices(event, made),)

    def finish(self) -> Sequence[GenerateEvent]:
        """Return the text held back for choices that never finished."""
        if self._include:
            return ()
        rest = [(index, choice.text) for index, choice in self._choices.items() if choice.text and not choice.finished]
        return (GenerateEvent(choices=tuple(ChoiceDelta(index=i, text=text) for i, text in rest)),) if rest else ()

    def _delta(self, delta: ChoiceDelta) -> ChoiceDelta | None:
        choice = self._choices.get(delta.index)
        if choice is None:
            choice = self._choices[delta.index] = _Choice()
        elif choice.finished:
            return None
        choice.tokens += len(delta.token_ids)
        new, old = delta.text, len(choice.text)
        if not new and (delta.finish_reason is None or not old):
            self._close(choice, delta.finish_reason)
            return delta
        text = choice.text + new
        exempt = choice.tokens <= self._min_tokens and delta.token_ids
        match = None if exempt or not new else self._match(text, old)
        if match is not None:
            stop, begin = match
            self._close(choice, "stop")
            shown = text[old : begin + len(stop)] if self._include else text[:begin]
            return with_text(delta, shown, stopped_by=stop)
        if self._include:
            choice.text = text[-(self._longest - 1) :] if self._longest > 1 else ""
            self._close(choice, delta.finish_reason)
            return delta
        if delta.finish_reason is None:
            keep = hold_from(text, self._stops, self._firsts, self._longest)
            choice.text = text[keep:]
            shown = text[:keep]
        else:
            self._close(choice, delta.finish_reason)
            shown = text
        return delta if shown == new else with_text(delta, shown)

    def _match(self, text: str, old: int) -> tuple[str, int] | None:
        """Return the stop string that is complete first, and where it begins; ties go to the first in the list."""
        best: tuple[str, int] | None = None
        best_end = len(text) + 1
        for stop in self._stops:
            size = len(stop)
            begin = text.find(stop, max(0, old - size + 1))
            if begin >= 0 and begin + size < best_end:
                best, best_end = (stop, begin), begin + size
        return best

    def _close(self, choice: _Choice, reason: FinishReason | None) -> None:
        if reason is not None:
            choice.finished = True
            self._ended += 1
