"""Follow one request through its waits, so that stop() and the total time can end it wherever it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from trunnion.errors import Cancelled, DeadlineExceeded

T = TypeVar("T")


class Flight:
    """Wait for others on behalf of one request. Not shared; ``stop()`` alone may be called from elsewhere."""

    __slots__ = ("_ends", "_stopped", "_task", "_total")

    def __init__(self, total: float | None) -> None:
        """``total``: seconds that the request may take from now on; None for no limit."""
        self._total = total
        self._ends = None if total is None else asyncio.get_running_loop().time() + total
        self._stopped = False
        self._task: asyncio.Task[Any] | None = None

    async def wait(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Await what the work returns.

        Raises:
            Cancelled: The engine was stopped.
            DeadlineExceeded: The total time is over.
        """
        if self._stopped:
            raise self._end()
        task = asyncio.current_task()
        assert task is not None  # coroutines run in tasks
        before = task.cancelling()
        self._task = task
        try:
            if self._ends is None:
                return await work(*arguments)
            return await self._in_time(self._ends, work, arguments)
        except asyncio.CancelledError as error:
            if self._is_stopped() and task.uncancel() <= before:
                raise self._end() from error
            raise
        finally:
            self._task = None

    async def _in_time(self, ends: float, work: Callable[..., Awaitable[T]], arguments: tuple[Any, ...]) -> T:
        timer = asyncio.timeout_at(ends)
        try:
            async with timer:
                return await work(*arguments)
        except TimeoutError as error:
            if not timer.expired():
                raise
            message = f"the request took more than its total time of {self._total:g} s; raise total_timeout"
            raise DeadlineExceeded(message, param="total_timeout") from error

    def _is_stopped(self) -> bool:
        return self._stopped  # asked anew: it changes while the request waits

    def stop(self) -> None:
        """End the request where it waits; one that does not wait ends at its next step."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    @staticmethod
    def _end() -> Cancelled:
        return Cancelled("the engine was stopped before the request was finished")
