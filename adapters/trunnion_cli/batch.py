"""Run rows through a pipeline of this process: a bounded number in flight, written in the order they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from trunnion import Pipeline
from trunnion.errors import EngineDead, InternalError, TrunnionError
from trunnion.rows import RowOptions, completion_to_columns, error_columns, row_to_request

from .progress import Progress
from .row_input import InputRow
from .row_output import RowOutput


class BatchRun:
    """Run one batch. ``n_in`` is the number of rows read so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        options: RowOptions,
        output: RowOutput,
        progress: Progress,
        *,
        concurrency: int,
        raise_errors: bool,
    ) -> None:
        self.n_in = 0
        self._pipeline = pipeline
        self._options = options
        self._output = output
        self._progress = progress
        self._raise = raise_errors
        self._slots = asyncio.Semaphore(concurrency)
        # Rows that are done wait here for slower ones before them; beyond this, the reader waits.
        self._window: asyncio.Queue[tuple[dict[str, Any], asyncio.Task[dict[str, Any]]] | None]
        self._window = asyncio.Queue(4 * concurrency + 64)
        self._tasks: set[asyncio.Task[dict[str, Any]]] = set()

    async def run(self, chunks: AsyncIterator[list[InputRow]]) -> None:
        """Run every row. Raises the first error of a row if asked to, and what ends the whole run."""
        feeder = asyncio.ensure_future(self._feed(chunks))
        writer = asyncio.ensure_future(self._write())
        try:
            done, _ = await asyncio.wait({feeder, writer}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            left: list[asyncio.Task[Any]] = [feeder, writer, *self._tasks]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _feed(self, chunks: AsyncIterator[list[InputRow]]) -> None:
        async for chunk in chunks:
            for item in chunk:
                await self._slots.acquire()
                task = asyncio.ensure_future(self._answer(item))
                self._tasks.add(task)
                task.add_done_callback(self._done)
                await self._window.put((item.row, task))
                self.n_in += 1
        await self._window.put(None)

    def _done(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled():
            task.exception()  # the writer raises it; asyncio need not warn

    async def _answer(self, item: InputRow) -> dict[str, Any]:
        try:
            if item.error is not None:
                raise item.error  # noqa: TRY301 - one place decides what becomes of an error
            return completion_to_columns(await self._pipeline.complete(row_to_request(item.row, self._options)))
        except EngineDead:
            raise  # every row after it would fail as well
        except TrunnionError as error:
            if self._raise:
                raise
            return error_columns(error)
        except Exception as error:
            failure = InternalError(f"{type(error).__name__}: {error}")
            if self._raise:
                raise failure from error
            return error_columns(failure)

    async def _write(self) -> None:
        while True:
            if self._window.empty():
                self._output.flush()
            item = await self._window.get()
            if item is None:
                return
            row, task = item
            if not task.done():
                self._output.flush()
            columns = await task
            self._output.write({**row, **columns})
            self._progress.count(columns)
