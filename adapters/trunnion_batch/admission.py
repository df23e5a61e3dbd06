"""Decide which rows an engine may have side by side, after one of them may have killed it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Final

FRESH: Final = 0
"""Rows that were at no death."""
SUSPECT: Final = 1
"""Rows that were in flight at one death: they run a few at a time, without others."""
ALONE: Final = 2
"""Rows that were in flight at two: each runs alone."""
_LEAST: Final = 4


class Admission:
    """Hold rows back until their turn. On one event loop; while no death happened it only counts.

    Of many rows that shared an engine when it died one may be the cause. They run again in groups of the square root
    of their number, so that a second death leaves few that must run alone, and each of these at most once.
    """

    def __init__(self) -> None:
        self.open = False
        self.inside = [0, 0, 0]
        self._group = _LEAST
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque(), deque())
        self._failure: BaseException | None = None

    @property
    def running(self) -> int:
        """Return the rows that were admitted and have not left."""
        return sum(self.inside)

    async def enter(self, level: int) -> None:
        """Wait until a row of this level may run. Raises what :meth:`fail` was given."""
        if self._failure is not None:
            raise self._failure
        if not self._waiting[level] and self._may(level):
            self.inside[level] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[level].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(level)  # it was let in, and will not come
            raise

    def leave(self, level: int) -> None:
        """Take note that a row is through with the engine, for whatever reason."""
        self.inside[level] -= 1
        self._pump()

    def close(self) -> None:
        """Let nobody in: there is no engine."""
        self.open = False

    def reopen(self, suspects: int) -> None:
        """Let rows in again. ``suspects``: how many were in flight when the last engine died."""
        self._group = max(_LEAST, math.isqrt(suspects))
        self.open = True
        self._pump()

    def fail(self, error: BaseException) -> None:
        """Let nobody in any more, and tell all that wait why."""
        self._failure = error
        for queue in self._waiting:
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_exception(error)

    def _may(self, level: int) -> bool:
        if not self.open:
            return False
        fresh, suspects, alone = self.inside
        if level == FRESH:
            return not (suspects or alone or self._waiting[SUSPECT] or self._waiting[ALONE])
        if level == SUSPECT:
            return not (fresh or alone or self._waiting[ALONE]) and suspects < self._group
        return not (fresh or suspects or alone)

    def _pump(self) -> None:
        for level in (ALONE, SUSPECT, FRESH):
            queue = self._waiting[level]
            while queue:
                if queue[0].done():  # given up
                    queue.popleft()
                elif self._may(level):
                    self.inside[level] += 1
                    queue.popleft().set_result(None)
                else:
                    break
