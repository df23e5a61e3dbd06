"""Run blocks of requests on an engine that lives on an event loop of its own, beside the threads that bring them."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from trunnion import GenerateRequest, LoopThread, Pipeline, PipelineSpec, Prepared, Prompt
from trunnion.errors import Cancelled, TrunnionError
from trunnion.pooling import PoolingRequest
from trunnion.row_tasks import RowAnswer, RowRequest
from trunnion_batch.prefix_order import PrefixQueue, prompt_key
from trunnion_batch.recovery import Recovery
from trunnion_batch.supervisor import EngineGone, Supervisor
from trunnion_ray.reaper import Reaper

from .adapters import AdapterLoader
from .desk import Call
from .desk_client import BlockBook, DeskClient
from .failures import row_failure

logger = logging.getLogger("trunnion.data")

_STOP_SECONDS: Final = 30.0


class Answer(NamedTuple):
    """Hold one answered row.

    ``prompt`` as the engine got it, what came back, the seconds it took, its block's id, and whether a journal or a
    cache had the answer.
    """

    prompt: Prompt
    completion: RowAnswer
    seconds: float
    block: str
    replayed: bool = False


Outcome = Answer | TrunnionError
Asked = tuple[RowRequest, Prepared | None]
"""A request, and the same templated and tokenized unless hooks must see it first."""


class _Block:
    """Count down the rows of one call; the call's thread waits on ``future``."""

    __slots__ = ("book", "future", "left", "name", "outcomes", "tasks")

    def __init__(self, size: int, book: BlockBook | None) -> None:
        self.name = uuid.uuid4().hex
        self.book = book
        self.future: Future[list[Outcome]] = Future()
        self.outcomes: list[Any] = [None] * size
        self.left = size
        self.tasks: set[asyncio.Task[None]] = set()

    def settle(self, index: int, outcome: Outcome) -> None:
        """Take the outcome of a row; the last one wakes the call."""
        self.outcomes[index] = outcome
        self.left -= 1
        if not self.left and not self.future.done():
            if self.book is not None:
                self.book.last()
            self.future.set_result(self.outcomes)

    def fail(self, error: TrunnionError) -> None:
        """End the call with an error, and give up the rows that are still running."""
        if not self.future.done():
            self.future.set_exception(error)
            for task in self.tasks:
                task.cancel()


class BlockRunner:
    """Own one engine. ``run()`` may be called from many threads at once; their rows run side by side."""

    def __init__(
        self,
        spec: PipelineSpec,
        *,
        fail_fast: bool = False,
        max_pending: int | None = None,
        prefix_order: bool = False,
        adapter_root: str | None = None,
        recovery: Recovery | None = None,
        desk: DeskClient | None = None,
    ) -> None:
        """Start the engine and return when it is ready. Raises what its start raises, and leaves nothing behind."""
        self._fail_fast = fail_fast
        self._desk = desk
        self._slots = None if max_pending is None else asyncio.Semaphore(max_pending)
        self._order: PrefixQueue | None = None
        self._open: dict[Call, _Block] = {}
        self._closing = threading.Lock()
        self._closed = False
        self._thread = LoopThread("trunnion-engine", _loop_factory())
        self._reaper = Reaper()
        self._supervisor = Supervisor(spec, recovery or Recovery(), opener=self._opened, replaced=self._with_adapters)
        try:
            self._thread.run(self._supervisor.start())
        except BaseException:
            self._closed = True
            self._reaper.close()
            self._thread.close()
            raise
        if prefix_order:
            self._order = PrefixQueue(max_pending or 2 * self.pipeline.info.concurrency)
        self._adapters = AdapterLoader(self.pipeline, adapter_root)
        # A full collection over the heap of an engine's libraries would stall the loop for about a second.
        gc.collect()
        gc.freeze()

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline on the engine that runs now, or that died last."""
        return self._supervisor.pipeline

    @property
    def deaths(self) -> int:
        """Return the engines that died so far."""
        return self._supervisor.deaths

    def run(self, requests: Sequence[RowRequest | TrunnionError], call: Call | None = None) -> list[Outcome]:
        """Answer the requests of one block, in order; errors of single rows come back in their places.

        ``call`` is the block's name at the job's desk.

        Raises:
            EngineDead: The engine died, and so did those that took its place.
            TrunnionError: The first row's error, if the runner was told to fail fast; or answers cannot be kept.
        """
        items = self._prepared(requests)
        if not items:
            return []
        book = None
        if self._desk is not None and call is not None:
            book = self._desk.begin(call, [None if isinstance(item, TrunnionError) else item for item in items])
        block = _Block(len(requests), book)
        if book is not None:
            self._open[book.call] = block
        try:
            self._thread.loop.call_soon_threadsafe(self._begin, block, items)
            outcomes = block.future.result()
        finally:
            if book is not None:
                del self._open[book.call]
        if book is not None:
            book.settle()
        return outcomes

    def open_blocks(self) -> list[tuple[Call, list[Outcome | None]]]:
        """Return the named blocks that are under way, with what became of their rows so far. From any thread."""
        return [(call, list(block.outcomes)) for call, block in list(self._open.items())]

    def _prepared(self, requests: Sequence[RowRequest | TrunnionError]) -> list[Asked | TrunnionError]:
        """Template and tokenize in the calling thread, unless hooks must see each request first."""
        if self.pipeline.has_request_hooks:
            return [request if isinstance(request, TrunnionError) else (request, None) for request in requests]
        made = iter(self.pipeline.prepare([one for one in requests if isinstance(one, GenerateRequest)]))
        items: list[Asked | TrunnionError] = []
        for request in requests:
            if isinstance(request, TrunnionError):
                items.append(request)
                continue
            if isinstance(request, PoolingRequest):
                items.append((request, None))
                continue
            prepared = next(made)
            items.append(prepared if isinstance(prepared, TrunnionError) else (request, prepared))
        return items

    def _begin(self, block: _Block, items: Sequence[Asked | TrunnionError]) -> None:
        if self._closed:
            block.fail(Cancelled("the replica is being stopped"))
            return
        if self._adapters.root is not None:
            names = {name for item in items if (name := _adapter(item)) is not None}
            missing = self._adapters.missing(names)
            if missing:
                self._spawn(block, self._load_then_begin(block, items, missing))
                return
        self._submit(block, items)

    async def _load_then_begin(self, block: _Block, items: Sequence[Any], missing: set[str]) -> None:
        failed = await self._adapters.load(missing)
        self._submit(block, [failed.get(_adapter(item) or "", item) for item in items])

    def _submit(self, block: _Block, items: Sequence[Asked | TrunnionError]) -> None:
        for index, item in enumerate(items):
            if block.future.done():
                return
            if isinstance(item, TrunnionError):
                self._settle(block, index, item)
            elif block.book is not None and (known := block.book.known[index]) is not None:
                block.settle(index, Answer(_prompt(item), known, 0.0, block.name, replayed=True))
            else:
                self._spawn(block, self._one(block, index, item))

    def _spawn(self, block: _Block, work: Coroutine[Any, Any, None]) -> None:
        task = self._thread.loop.create_task(work)
        block.tasks.add(task)
        task.add_done_callback(block.tasks.discard)

    async def _one(self, block: _Block, index: int, item: Asked) -> None:
        began = time.perf_counter()
        try:
            if self._order is not None:
                async with self._order.slot(prompt_key(_prompt(item))):
                    completion = await self._complete(block, index, item)
            elif self._slots is None:
                completion = await self._complete(block, index, item)
            else:
                async with self._slots:
                    completion = await self._complete(block, index, item)
        except EngineGone as gone:
            block.fail(gone.error)
        except TrunnionError as error:
            self._settle(block, index, error)
        except asyncio.CancelledError:
            block.fail(Cancelled("the replica was stopped before the row was answered"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the block must end
            block.fail(row_failure("row", error))
        else:
            if block.book is not None:
                block.book.answered(index, completion)
            block.settle(index, Answer(_prompt(item), completion, time.perf_counter() - began, block.name))

    async def _complete(self, block: _Block, index: int, item: Asked) -> RowAnswer:
        request, prepared = item
        if block.book is None:
            return await self._supervisor.answer(request, prepared)
        watch = _Watch(block.book, index)
        return await self._supervisor.answer(request, prepared, deaths=block.book.deaths[index], watch=watch)

    def _settle(self, block: _Block, index: int, error: TrunnionError) -> None:
        if self._fail_fast:
            block.fail(error)
        else:
            block.settle(index, error)

    def close(self) -> None:
        """Stop the engine and end its thread. Idempotent, from any thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            try:
                self._thread.submit(self._supervisor.stop()).result(timeout=_STOP_SECONDS)
                self._reaper.close()
            finally:
                self._thread.close()

    async def _opened(self, spec: PipelineSpec) -> Pipeline:
        """Start a pipeline, watched: an actor that is killed must not leave the engine's processes behind."""
        self._reaper.close()
        self._reaper = Reaper()
        self._reaper.start()
        pipeline = Pipeline(spec)
        await pipeline.start()  # which stops the engine again if it fails
        self._reaper.settle()
        return pipeline

    async def _with_adapters(self, pipeline: Pipeline) -> None:
        """Load what rows named before into an engine that takes another's place."""
        before, self._adapters = self._adapters, AdapterLoader(pipeline, self._adapters.root)
        await self._adapters.load(before.loaded)


class _Watch:
    """Tell the desk of one row."""

    __slots__ = ("_book", "_index")

    def __init__(self, book: BlockBook, index: int) -> None:
        self._book, self._index = book, index

    async def entering(self) -> None:
        await self._book.entering(self._index)

    def left(self) -> None:
        self._book.left(self._index)


def _prompt(item: Asked) -> Prompt:
    request, prepared = item
    return request.prompt if prepared is None else prepared.request.prompt


def _adapter(item: Asked | TrunnionError) -> str | None:
    return None if isinstance(item, TrunnionError) else item[0].adapter


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop where it is installed: a batch is thousands of small wake-ups."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
