"""Give rows to the engine in the order of their prompts, so that its prefix cache still has what they share."""

from __future__ import annotations

import asyncio
import bisect
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from trunnion import Prompt, TextPrompt, TokensPrompt

_LONGEST: Final = 4096
"""Tokens of a prompt that are looked at."""


class PrefixQueue:
    """Let a number of rows through at a time; those that wait follow each other by their prompts. On one event loop.

    The next row is the one behind the last in the order of tokens, and after the last of all the first: like a lift,
    it passes everyone in one round. So rows that share a prefix go close together, out of those that wait, and nobody
    waits for ever. Where the outcome goes is not its business: rows keep their places.
    """

    def __init__(self, slots: int) -> None:
        """Let ``slots`` rows through at a time."""
        self._free = slots
        self._waiting: list[tuple[bytes, int, asyncio.Future[None]]] = []
        self._number = 0
        self._last: tuple[bytes, int] = (b"", -1)

    @property
    def waiting(self) -> int:
        """Return the rows that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self, key: bytes) -> AsyncIterator[None]:
        """Hold a slot; ``key`` is the prompt, as :func:`prompt_key` gives it."""
        await self._enter(key)
        try:
            yield
        finally:
            self._free += 1
            self._pump()

    async def _enter(self, key: bytes) -> None:
        self._number += 1
        if self._free and not self._waiting:
            self._free -= 1
            self._last = (key, self._number)
            return
        turn = asyncio.get_running_loop().create_future()
        entry = (key, self._number, turn)
        bisect.insort(self._waiting, entry, key=_order)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free += 1  # it was let through, and will not come
                self._pump()
            else:
                self._waiting.remove(entry)
            raise

    def _pump(self) -> None:
        while self._free and self._waiting:
            index = bisect.bisect_right(self._waiting, self._last, key=_order)
            key, number, turn = self._waiting.pop(index if index < len(self._waiting) else 0)
            if turn.done():  # given up
                continue
            self._free -= 1
            self._last = (key, number)
            turn.set_result(None)


def _order(entry: tuple[bytes, int, asyncio.Future[None]]) -> tuple[bytes, int]:
    return entry[0], entry[1]


def prompt_key(prompt: Prompt) -> bytes:
    """Return bytes whose order is that of the prompt's tokens, or of its characters."""
    if isinstance(prompt, TokensPrompt):
        tokens = array("I", prompt.token_ids[:_LONGEST])
        if sys.byteorder == "little":
            tokens.byteswap()  # bytes compare from the left
        return tokens.tobytes()
    if isinstance(prompt, TextPrompt):
        return prompt.text[: 4 * _LONGEST].encode("utf-8", "surrogatepass")
    return repr(prompt.messages)[: 4 * _LONGEST].encode("utf-8", "surrogatepass")
