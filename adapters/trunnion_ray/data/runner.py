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

from trunnion import Completion, GenerateRequest, LoopThread, Pipeline, PipelineSpec, Prepared, Prompt, collect
from trunnion.errors import Cancelled, EngineDead, TrunnionError
from trunnion_ray.reaper import Reaper

from .adapters import AdapterLoader

logger = logging.getLogger("trunnion.data")

_STOP_SECONDS: Final = 30.0


class Answer(NamedTuple):
    """Hold one answered row: the prompt as the engine got it, what came back, the seconds it took, its block's id."""

    prompt: Prompt
    completion: Completion
    seconds: float
    block: str


Outcome = Answer | TrunnionError


class _Block:
    """Count down the rows of one call; the call's thread waits on ``future``."""

    __slots__ = ("future", "left", "name", "outcomes", "tasks")

    def __init__(self, size: int) -> None:
        self.name = uuid.uuid4().hex
        self.future: Future[list[Outcome]] = Future()
        self.outcomes: list[Any] = [None] * size
        self.left = size
        self.tasks: set[asyncio.Task[None]] = set()

    def settle(self, index: int, outcome: Outcome) -> None:
        """Take the outcome of a row; the last one wakes the call."""
        self.outcomes[index] = outcome
        self.left -= 1
        if not self.left and not self.future.done():
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
        adapter_root: str | None = None,
    ) -> None:
        """Start the engine and return when it is ready. Raises what its start raises, and leaves nothing behind."""
        self._fail_fast = fail_fast
        self._slots = None if max_pending is None else asyncio.Semaphore(max_pending)
        self._closing = threading.Lock()
        self._closed = False
        self._thread = LoopThread("trunnion-engine", _loop_factory())
        self._reaper = Reaper()
        try:
            self.pipeline = self._thread.run(self._opened(spec))
        except BaseException:
            self._closed = True
            self._reaper.close()
            self._thread.close()
            raise
        self._adapters = AdapterLoader(self.pipeline, adapter_root)
        # A full collection over the heap of an engine's libraries would stall the loop for about a second.
        gc.collect()
        gc.freeze()

    def run(self, requests: Sequence[GenerateRequest | TrunnionError]) -> list[Outcome]:
        """Answer the requests of one block, in order; errors of single rows come back in their places.

        Raises:
            EngineDead: The engine died; none of its rows can be answered any more.
            TrunnionError: The first row's error, if the runner was told to fail fast.
        """
        block = _Block(len(requests))
        items = self._prepared(requests)
        if not items:
            return []
        self._thread.loop.call_soon_threadsafe(self._begin, block, items)
        return block.future.result()

    def _prepared(
        self, requests: Sequence[GenerateRequest | TrunnionError]
    ) -> Sequence[Prepared | GenerateRequest | TrunnionError]:
        """Template and tokenize in the calling thread, unless hooks must see each request first."""
        if self.pipeline.has_request_hooks:
            return requests
        good = [request for request in requests if isinstance(request, GenerateRequest)]
        if len(good) == len(requests):
            return self.pipeline.prepare(good)
        made = iter(self.pipeline.prepare(good))
        return [request if isinstance(request, TrunnionError) else next(made) for request in requests]

    def _begin(self, block: _Block, items: Sequence[Prepared | GenerateRequest | TrunnionError]) -> None:
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

    def _submit(self, block: _Block, items: Sequence[Prepared | GenerateRequest | TrunnionError]) -> None:
        for index, item in enumerate(items):
            if block.future.done():
                return
            if isinstance(item, TrunnionError):
                self._settle(block, index, item)
            else:
                self._spawn(block, self._one(block, index, item))

    def _spawn(self, block: _Block, work: Coroutine[Any, Any, None]) -> None:
        task = self._thread.loop.create_task(work)
        block.tasks.add(task)
        task.add_done_callback(block.tasks.discard)

    async def _one(self, block: _Block, index: int, item: Prepared | GenerateRequest) -> None:
        began = time.perf_counter()
        try:
            if self._slots is None:
                completion = await collect(self.pipeline.generate(item))
            else:
                async with self._slots:
                    completion = await collect(self.pipeline.generate(item))
        except TrunnionError as error:
            self._settle(block, index, error)
        except asyncio.CancelledError:
            block.fail(Cancelled("the replica was stopped before the row was answered"))
            raise
        else:
            prompt = item.request.prompt if isinstance(item, Prepared) else item.prompt
            block.settle(index, Answer(prompt, completion, time.perf_counter() - began, block.name))

    def _settle(self, block: _Block, index: int, error: TrunnionError) -> None:
        if self._fail_fast or isinstance(error, EngineDead):
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
                self._thread.submit(self.pipeline.stop()).result(timeout=_STOP_SECONDS)
                self._reaper.close()
            finally:
                self._thread.close()

    async def _opened(self, spec: PipelineSpec) -> Pipeline:
        """Start the pipeline, watched: an actor that is killed must not leave the engine's processes behind."""
        self._reaper.start()
        pipeline = Pipeline(spec)
        await pipeline.start()  # which stops the engine again if it fails
        self._reaper.settle()
        return pipeline


def _adapter(item: Prepared | GenerateRequest | TrunnionError) -> str | None:
    if isinstance(item, TrunnionError):
        return None
    return item.request.adapter if isinstance(item, Prepared) else item.adapter


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop where it is installed: a batch is thousands of small wake-ups."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
