"""Decode a growing sequence of tokens by decoding a short window of it again and again.

What a token adds to the text depends on its neighbours: a character may be spread over several tokens, and many
tokenizers drop the space in front of the very first token. So the window reaches back over tokens whose text is
known, and the text that is new is what follows theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

Decode = Callable[[Sequence[int]], str]

_INCOMPLETE: Final = "\ufffd"
_TAIL: Final = 6
"""Tokens of the prompt to look back at: more than any character has bytes."""
_LONGEST: Final = 24
"""Tokens in the window before it is cut; a decode per token more now and then, against longer decodes each time."""
_GARBAGE: Final = 48
"""Pending tokens after which they are no character in the making."""


class Window:
    """Hold the last tokens of one sequence: those whose text went out, and those still held back."""

    __slots__ = ("_decode", "_pending", "_seen", "_text")

    def __init__(self, decode: Decode, seen: list[int], text: str, pending: list[int]) -> None:
        self._decode = decode
        self._seen = seen
        self._text = text
        self._pending = pending

    def push(self, ids: Sequence[int]) -> str:
        """Return the text that these tokens complete."""
        if not ids:
            return ""
        pending = [*self._pending, *ids]
        whole = self._decode(self._seen + pending)
        known = len(self._text)
        if whole.startswith(self._text) and _INCOMPLETE not in whole[known:]:
            return self._take(whole, pending)
        # Rare: an incomplete or invalid sequence. Token by token, so that the outcome hangs on the tokens alone and
        # not on how they were cut into events.
        return "".join([self._step(number) for number in ids])

    def flush(self) -> str:
        """Return the text of what is still held back, with U+FFFD for the characters that are cut off."""
        pending = self._pending
        if not pending:
            return ""
        whole = self._decode(self._seen + pending)
        if not whole.startswith(self._text):
            whole = self._text + self._decode(pending)
        return self._take(whole, pending)

    def _step(self, number: int) -> str:
        pending = [*self._pending, number]
        whole = self._decode(self._seen + pending)
        if whole.endswith(_INCOMPLETE) and len(pending) < _GARBAGE:
            self._pending = pending
            return ""
        if whole.startswith(self._text):
            return self._take(whole, pending)
        # Some decoders change earlier text when an invalid byte follows: go on from the pending tokens alone.
        text = self._decode(pending)
        self._seen, self._text, self._pending = pending, text, []
        return text

    def _take(self, whole: str, pending: list[int]) -> str:
        new = whole[len(self._text) :]
        self._pending = []
        if len(self._seen) + len(pending) > _LONGEST:
            text = self._decode(pending)
            if text and not text.startswith(_INCOMPLETE):
                self._seen, self._text = pending, text
                return new
        self._seen += pending
        self._text = whole
        return new


def prime(decode: Decode, prompt: Sequence[int]) -> Window:
    """Return a window that begins at the end of the prompt."""
    size = _TAIL
    tail = list(prompt[-size:])
    text = decode(tail) if tail else ""
    while not text and size < len(prompt):  # special tokens alone: reach back to some text
        size *= 4
        tail = list(prompt[-size:])
        text = decode(tail)
    if text.endswith(_INCOMPLETE):
        for cut in (1, 2, 3):
            known = decode(tail[:-cut])
            if not known.endswith(_INCOMPLETE):
                return Window(decode, tail[:-cut], known, tail[-cut:])
    return Window(decode, tail, text, [])
