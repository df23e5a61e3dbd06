"""Run rows through a pipeline of this process: a bounded number in flight, written in the order they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from trunnion.errors import InternalError, TrunnionError
from trunnion.row_tasks import RowRequest, answer_columns, failed_columns, task_request
from trunnion.rows import RowOptions

from .account import Account
from .answering import Answerer
from .journal import Journal
from .routes import routes
from .row_input import InputRow
from .row_output import RowOutput
from .supervisor import EngineGone

_FLUSH_SECONDS: Final = 2.0


RowFunction = Callable[[dict[str, Any]], Mapping[str, Any]]


class Done(NamedTuple):
    """Hold the output columns of a row, whether the engine was spared, and the final row if that is another one.

    ``prices``: of the model that answered.
    """

    columns: dict[str, Any]
    replayed: bool = False
    final: dict[str, Any] | None = None
    prices: Mapping[str, float] | None = None


class Asked(NamedTuple):
    """Hold who answers the rows of one model, and how they become requests."""

    answerer: Answerer
    options: RowOptions


def done_behind(concurrency: int) -> int:
    """Return how many rows may be done and wait for slower ones before them, with so many in flight."""
    return 4 * concurrency + 64


class BatchRun:
    """Run one batch.

    Attributes:
        n_in: Rows read so far.
        answered: Counts the rows that are answered, also those that wait for slower ones before them.
        stopped: Whether :meth:`drain` left rows unread.
    """

    def __init__(
        self,
        answerer: Answerer,
        options: RowOptions,
        output: RowOutput,
        account: Account,
        *,
        concurrency: int,
        raise_errors: bool = False,
        dead_letters: RowOutput | None = None,
        preprocess: RowFunction | None = None,
        postprocess: RowFunction | None = None,
        journals: tuple[Journal, ...] = (),
        further: Mapping[str, Asked] = MappingProxyType({}),
    ) -> None:
        """Take what one run needs.

        Args:
            answerer: Answers requests.
            options: How rows become requests.
            output: Takes every row, in order.
            account: Counts every row; may end the run.
            concurrency: Rows in flight.
            raise_errors: Whether the first failed row ends the run.
            dead_letters: Takes the rows that failed as well.
            preprocess: Returns columns to be added to a row before it is asked; the output does not have them.
            postprocess: Returns the final columns of an answered row.
            journals: What is brought to safety every now and then.
            further: Who answers the rows that name another model, by its name.
        """
        self.n_in = 0
        self.answered = Account()
        self.stopped = False
        self._fed = False
        self._options = options
        self._output = output
        self._account = account
        self._raise = raise_errors
        self._dead_letters = dead_letters
        self._preprocess = preprocess
        self._postprocess = postprocess
        self._journals = journals
        self._routes = routes(tuple(further), options.columns.model)
        self._asked = (Asked(answerer, options), *further.values())
        self._slots = asyncio.Semaphore(concurrency)
        # Rows that are done wait here for slower ones before them; beyond this, the reader waits.
        self._window: asyncio.Queue[tuple[InputRow, asyncio.Task[Done]] | None]
        self._window = asyncio.Queue(done_behind(concurrency))
        self._tasks: set[asyncio.Task[Done]] = set()
        self._drain = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Return the rows that were begun and are not answered."""
        return len(self._tasks)

    def drain(self) -> None:
        """Begin no further rows; :meth:`run` returns when those in flight are written. On the loop of the run."""
        self._drain.set()

    async def run(self, chunks: AsyncIterator[list[InputRow]]) -> None:
        """Run every row. Raises the first error of a row if asked to, and what ends the whole run."""
        feeder = asyncio.ensure_future(self._feed(chunks))
        writer = asyncio.ensure_future(self._write())
        flusher = asyncio.ensure_future(self._flush())
        drain = asyncio.ensure_future(self._drain.wait())
        try:
            pending: set[asyncio.Future[Any]] = {feeder, writer, flusher, drain}
            while writer in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {drain}:
                    if not task.cancelled():
                        task.result()
                if drain in done and not feeder.done():
                    self.stopped = not self._fed
                    feeder.cancel()  # it may wait for input that does not come
                    await asyncio.wait({feeder})
                    await self._window.put(None)
        finally:
            left: list[asyncio.Future[Any]] = [feeder, writer, flusher, drain, *self._tasks]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _feed(self, chunks: AsyncIterator[list[InputRow]]) -> None:
        async for chunk in chunks:
            for item in chunk:
                await self._slots.acquire()
                await self._begin(item)
        self._fed = True
        await self._window.put(None)

    async def _begin(self, item: InputRow) -> None:
        task = asyncio.ensure_future(self._answer(item))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        try:
            await self._window.put((item, task))
        except asyncio.CancelledError:  # by drain(): the row is not part of this run
            task.cancel()
            raise
        self.n_in += 1

    def _done(self, task: asyncio.Task[Done]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is None:  # else the writer raises it; asyncio need not warn
            done = task.result()
            self.answered.add(done.columns, replayed=done.replayed, prices=done.prices)

    async def _answer(self, item: InputRow) -> Done:
        try:
            if item.error is not None:
                raise item.error  # noqa: TRY301 - one place decides what becomes of an error
            row = item.row if self._preprocess is None else {**item.row, **self._preprocess(item.row)}
            answerer, request = self._request(row)
            answered = await answerer.answer(request)
            columns = answer_columns(answered.completion)
            final = None
            if self._postprocess is not None:
                try:
                    final = {**self._postprocess({**row, **columns}), "error": None}
                except Exception as error:
                    if self._raise:
                        raise
                    ours = error if isinstance(error, TrunnionError) else None
                    told = failed_columns(ours or InternalError(f"{type(error).__name__}: {error}"), self._options.task)
                    columns = {**columns, "error": told["error"]}  # the answer stays: it was paid for
            return Done(columns, answered.replayed, final, answerer.prices)
        except EngineGone as gone:
            raise gone.error from gone  # every row after it would fail as well
        except TrunnionError as error:
            if self._raise or error.param == "journal":  # a journal that cannot be written keeps no promise
                raise
            failure = self._routes.told(error, self._options.base_models)
            return Done(failed_columns(failure, self._options.task))
        except Exception as error:
            failure = InternalError(f"{type(error).__name__}: {error}")
            if self._raise:
                raise failure from error
            return Done(failed_columns(failure, self._options.task))

    def _request(self, row: dict[str, Any]) -> tuple[Answerer, RowRequest]:
        """Return the request of a row, and who answers it."""
        place, rest = 0, None
        if self._routes.names:
            place, rest = self._routes.of(row.get(self._options.columns.model))
        answerer, options = self._asked[place]
        return answerer, task_request({**row, options.columns.model: rest} if place else row, options)

    async def _write(self) -> None:
        while True:
            if self._window.empty():
                self._output.flush()
            next_one = await self._window.get()
            if next_one is None:
                return
            item, task = next_one
            row = item.row
            if not task.done():
                self._output.flush()
            done = await task
            self._output.write({**row, **done.columns} if done.final is None else done.final)
            if self._dead_letters is not None and done.columns["error"] is not None:
                self._dead_letters.write({**row, "error": done.columns["error"]})
            self._account.add(done.columns, replayed=done.replayed, prices=done.prices, number=item.number)

    async def _flush(self) -> None:
        while self._journals:
            await asyncio.sleep(_FLUSH_SECONDS)
            for journal in self._journals:
                await asyncio.to_thread(journal.flush)
        await asyncio.Event().wait()
