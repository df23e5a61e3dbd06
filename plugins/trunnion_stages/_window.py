"""Decode a growing sequence of tokens.

What a token adds to the text depends on its neighbours: a character may be spread over several tokens, and many
tokenizers drop the space in front of the very first token. So decoding begins at the end of the prompt, whose text is
known, and text goes out once it is complete. The library's own ``DecodeStream`` does this token by token; this module
primes it with a few tokens of the prompt instead of all, keeps what is incomplete at hand to flush it, and decodes an
output that comes whole in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_INCOMPLETE: Final = "\ufffd"
_TAIL: Final = 6
"""Tokens of the prompt to look back at: more than any character has bytes."""
_GARBAGE: Final = 48
"""Pending tokens after which they are no character in the making."""


class Window:
    """Decode one sequence that follows a prompt."""

    __slots__ = ("_backend", "_known", "_pending", "_skip", "_stream", "_tail")

    def __init__(self, backend: Any, prompt: Sequence[int], *, skip_special_tokens: bool) -> None:
        self._backend = backend
        self._skip = skip_special_tokens
        size = _TAIL
        tail = list(prompt[-size:])
        known = self._decode(tail) if tail else ""
        while not known and size < len(prompt):  # special tokens alone: reach back to some text
            size *= 4
            tail = list(prompt[-size:])
            known = self._decode(tail)
        self._pending: list[int] = []
        if known.endswith(_INCOMPLETE):  # the prompt ends within a character, which the output completes
            for cut in (1, 2, 3):
                shorter = self._decode(tail[:-cut])
                if not shorter.endswith(_INCOMPLETE):
                    tail, known, self._pending = tail[:-cut], shorter, tail[-cut:]
                    break
        self._tail = tail
        self._known = known
        self._stream: Any = None

    def push(self, ids: Sequence[int]) -> str:
        """Return the text that these tokens complete."""
        if self._stream is None:
            self._stream = _stream(self._tail, skip_special_tokens=self._skip)
            for number in self._pending:
                self._stream.step(self._backend, number)
        if len(ids) == 1:
            return self._step(ids[0])
        return "".join([self._step(number) for number in ids])

    def flush(self) -> str:
        """Return the text of what is still held back, with U+FFFD for the characters that are cut off."""
        return self._decode(self._pending) if self._pending else ""

    def whole(self, ids: Sequence[int]) -> str | None:
        """Return the text of an output that came whole; None if it must be decoded step by step."""
        text = self._decode([*self._tail, *self._pending, *ids])
        known = self._known
        if not text.startswith(known) or _INCOMPLETE in text[len(known) :]:
            return None
        return text[len(known) :]

    def _decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(ids, self._skip)  # type: ignore[no-any-return]

    def _step(self, number: int) -> str:
        try:
            text: str | None = self._stream.step(self._backend, number)
        except Exception as error:
            if "Invalid prefix" not in str(error):
                raise
            # Some decoders change earlier text when an invalid byte follows: go on from the pending tokens alone.
            return self._restart([*self._pending, number])
        if text is not None:
            if self._pending:
                self._pending = []
            return text
        self._pending.append(number)
        if len(self._pending) >= _GARBAGE and self._decode(self._pending):
            return self._restart(self._pending)
        return ""

    def _restart(self, ids: list[int]) -> str:
        self._pending = []
        self._stream = _stream(ids, skip_special_tokens=self._skip)
        return self._decode(ids)


def _stream(ids: list[int], *, skip_special_tokens: bool) -> Any:
    from tokenizers.decoders import DecodeStream

    return DecodeStream(ids=ids, skip_special_tokens=skip_special_tokens)
