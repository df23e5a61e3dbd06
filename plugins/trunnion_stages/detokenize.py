"""Turn token ids into text as they come, never splitting a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from trunnion.events import ChoiceDelta, GenerateEvent
from trunnion.requests import GenerateRequest, TokensPrompt
from trunnion.stage import StageContext

from ._rebuild import with_choices, with_text
from ._tokenizers import load_tokenizer, tokenizer_ref
from ._window import Window
from .config import DetokenizeConfig


class DetokenizeStage:
    """Fill in the text of deltas that carry token ids alone.

    Text comes out as from decoding prompt and output together: the spacing at the seam is right. Deltas that have
    text already pass unchanged. A token that ended the choice (EOS, a stop token) is no part of its text, unless
    ``include_stop_str_in_output`` asks for it.
    """

    def __init__(self, context: StageContext, config: DetokenizeConfig) -> None:
        ref = tokenizer_ref(context, "detokenize")
        tokenizer = load_tokenizer(ref, trust_remote_code=config.trust_remote_code)
        self._backend: Any = tokenizer.backend
        self._special_ids = tokenizer.special_ids
        self._flush = config.flush_incomplete

    def open(self, request: GenerateRequest) -> Detokenizer | None:
        """Return a detokenizer; None if the caller wants token ids alone."""
        if not request.detokenize:
            return None
        prompt = request.prompt
        ids = prompt.token_ids if isinstance(prompt, TokensPrompt) else ()
        ends = _NONE if request.sampling.include_stop_str_in_output else self._special_ids
        window = partial(Window, self._backend, ids, skip_special_tokens=request.sampling.skip_special_tokens)
        return Detokenizer(window, ends=ends, flush=self._flush)


_NONE: Final[frozenset[int]] = frozenset()


class Detokenizer:
    """Detokenize one request's events; a window over each choice's last tokens."""

    __slots__ = ("_ends", "_flush", "_window", "_windows", "done")

    def __init__(self, window: Callable[[], Window], *, ends: frozenset[int], flush: bool) -> None:
        self.done = False
        self._window = window
        self._ends = ends
        self._flush = flush
        self._windows: dict[int, Window] = {}

    def feed(self, event: GenerateEvent) -> tuple[GenerateEvent]:
        """Return the event with its text."""
        return (with_choices(event, [self._delta(choice) for choice in event.choices]),)

    def finish(self) -> tuple[GenerateEvent, ...]:
        """Return what was held back for choices that never finished."""
        if not self._flush:
            return ()
        rest = ((index, window.flush()) for index, window in self._windows.items())
        choices = tuple(ChoiceDelta(index=index, text=text) for index, text in rest if text)
        return (GenerateEvent(choices=choices),) if choices else ()

    def _delta(self, choice: ChoiceDelta) -> ChoiceDelta:
        index, ids, reason = choice.index, choice.token_ids, choice.finish_reason
        window = self._windows.get(index)
        if choice.text or (not ids and (reason is None or window is None)):
            return choice
        stop_reason = choice.stop_reason
        if reason == "stop" and ids and self._ends:
            last = ids[-1]
            if last == stop_reason or (stop_reason is None and last in self._ends):
                ids = ids[:-1]
        return with_text(choice, self._text(index, window, ids, last=reason is not None))

    def _text(self, index: int, window: Window | None, ids: Sequence[int], *, last: bool) -> str:
        if window is None:
            window = self._window()
            if last:
                text = window.whole(ids)
                if text is not None:
                    return text
            self._windows[index] = window
        text = window.push(ids) if ids else ""
        if last:
            del self._windows[index]
            if self._flush:
                text += window.flush()
        return text
