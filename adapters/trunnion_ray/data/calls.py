"""Make one call per row, many at once, on an event loop beside the threads that bring the rows."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from trunnion import LoopThread
from trunnion.errors import Cancelled, InternalError, TrunnionError

_STOP_SECONDS: Final = 30.0


class Caller(Protocol):
    """Answer rows. Travels to the actor, and is started there, on the loop that it is called on."""

    async def start(self) -> None:
        """Connect to what answers. Raises an error of the tree if there is nothing."""
        ...

    async def call(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what was answered. Raises the row's error."""
        ...

    async def stop(self) -> None:
        """Let go what ``start`` took."""
        ...


class Called(NamedTuple):
    """Hold one answered row: what came back, the seconds it took, its block's id."""

    answer: Mapping[str, Any]
    seconds: float
    block: str


class CallRunner:
    """Own one caller. ``run()`` may be called from many threads at once; their rows are called side by side."""

    def __init__(self, caller: Caller, *, fail_fast: bool = False) -> None:
        """Start the caller. Raises what its start raises, and leaves nothing behind."""
        self._caller = caller
        self._fail_fast = fail_fast
        self._closed = False
        self._thread = LoopThread("trunnion-calls")
        try:
            self._thread.run(caller.start())
        except BaseException:
            self._closed = True
            self._thread.close()
            raise

    def run(self, rows: Sequence[Mapping[str, Any] | TrunnionError]) -> list[Called | TrunnionError]:
        """Answer the rows of one block, in order; errors of single rows come back in their places.

        Raises:
            TrunnionError: The first row's error, if the runner was told to fail fast; or the runner was closed.
        """
        if self._closed:
            raise Cancelled("the replica is being stopped")
        return self._thread.run(self._block(rows))

    async def _block(self, rows: Sequence[Mapping[str, Any] | TrunnionError]) -> list[Called | TrunnionError]:
        name = uuid.uuid4().hex
        tasks = [asyncio.ensure_future(self._one(row, name)) for row in rows]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # where one ends the job, the others are given up
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, row: Mapping[str, Any] | TrunnionError, block: str) -> Called | TrunnionError:
        began = time.perf_counter()
        failure = row if isinstance(row, TrunnionError) else None
        if not isinstance(row, TrunnionError):
            try:
                return Called(await self._caller.call(row), time.perf_counter() - began, block)
            except TrunnionError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the row's own
                failure = InternalError(f"the call of a row raised {type(error).__name__}: {error}")
                failure.__cause__ = error
        assert failure is not None
        if self._fail_fast:
            raise failure
        return failure

    def close(self) -> None:
        """Stop the caller and end its thread. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            with contextlib.suppress(TimeoutError):
                self._thread.submit(self._caller.stop()).result(timeout=_STOP_SECONDS)
        finally:
            self._thread.close()
