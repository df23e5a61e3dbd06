"""Admit requests to a bounded number of slots: by priority, then in the order they came."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from trunnion.errors import Overloaded, TrunnionError


class Slots:
    """Count what runs and what waits; a slot is released however its request ends."""

    def __init__(self, size: int, max_waiting: int | None) -> None:
        self._size = size
        self._max_waiting = max_waiting
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = itertools.count()
        self._idle = asyncio.Event()
        self._idle.set()
        self.running = 0

    @property
    def waiting(self) -> int:
        """Return how many requests wait for a slot."""
        return len(self._queue)

    @asynccontextmanager
    async def hold(self, priority: int) -> AsyncIterator[None]:
        """Hold a slot for the length of the block. Raises :class:`Overloaded` if the queue is full."""
        if self.running < self._size and not self._queue:
            self.running += 1
        else:
            await self._wait(priority)
        self._idle.clear()
        try:
            yield
        finally:
            self._release()

    async def _wait(self, priority: int) -> None:
        if self._max_waiting is not None and len(self._queue) >= self._max_waiting:
            raise Overloaded(f"{len(self._queue)} requests wait already; try again later", retry_after=1.0)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (priority, next(self._ticket), turn)
        heapq.heappush(self._queue, entry)
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._queue:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release()  # the slot was handed over just before the cancellation
            raise

    def _release(self) -> None:
        while self._queue:
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                turn.set_result(None)  # the slot passes on: `running` stays
                return
        self.running -= 1
        if self.running == 0:
            self._idle.set()

    def refuse_waiting(self, failure: Callable[[], TrunnionError]) -> None:
        """End the requests that wait for a slot: nobody may be left to hand them one."""
        queue, self._queue = self._queue, []
        for _, _, turn in queue:
            if not turn.done():
                turn.set_exception(failure())

    async def idle(self) -> None:
        """Wait until nothing runs."""
        await self._idle.wait()
