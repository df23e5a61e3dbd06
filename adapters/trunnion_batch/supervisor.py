"""Answer rows on an engine that may die: it is replaced, its rows asked again, and a row that kills is set apart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from trunnion import (
    Classification,
    Completion,
    Embedding,
    GenerateRequest,
    Pipeline,
    PipelineSpec,
    Prepared,
    Prompt,
    Score,
    collect,
)
from trunnion.errors import DeadlineExceeded, EngineDead, TrunnionError
from trunnion.pooling import PoolingRequest
from trunnion.row_tasks import RowAnswer, RowRequest

from .admission import ALONE, Admission
from .recovery import Recovery
from .unreachable import Losses, Unreachable

logger = logging.getLogger("trunnion.batch")

QUARANTINED: Final = "row_quarantined"
"""Code of the error of a row that killed an engine which had nothing else to do."""
_STOP_SECONDS: Final = 30.0
_LONGEST_WAIT: Final = 60.0
_BETWEEN_LOOKS: Final = 10.0
"""Seconds at most between the attempts of a row that waits for an engine's return."""
_QUIET: Final = 10.0
"""Seconds after a death that was told in which further ones are counted alone."""

T = TypeVar("T")
Opener = Callable[[PipelineSpec], Awaitable[Pipeline]]


class EngineGone(Exception):
    """Say that there will be no engine any more; ``error`` is why. No error of a row: it ends the job."""

    def __init__(self, error: TrunnionError) -> None:
        super().__init__(str(error))
        self.error = error


class SuspectWatch(Protocol):
    """Be told of a row that was there at a death, by the one supervisor that has it."""

    async def entering(self) -> None:
        """Take note, before the engine gets the row: it may take this process with it."""
        ...

    def left(self) -> None:
        """Take note that it did not."""
        ...


class _Running:
    """Hold one engine from its start to its death."""

    __slots__ = ("dead", "pipeline", "signs", "tasks")

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.tasks: set[asyncio.Task[Any]] = set()
        self.dead: EngineDead | None = None
        self.signs: tuple[Any, float] = (None, time.monotonic())

    @property
    def failure(self) -> EngineDead | None:
        return self.dead


class Supervisor:
    """Keep one engine of a spec running. All of it on one event loop, except ``prepare``, which any thread may call.

    Attributes:
        answered: Rows answered so far.
        deaths: Engines that died so far.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        recovery: Recovery,
        *,
        opener: Opener | None = None,
        replaced: Callable[[Pipeline], Awaitable[None]] | None = None,
    ) -> None:
        """Start nothing.

        Args:
            spec: What to build, each time anew.
            recovery: How often.
            opener: Starts a pipeline; what it raises is a failed start.
            replaced: Awaited with each pipeline but the first, before it gets rows.
        """
        self.answered = 0
        self.deaths = 0
        self._spec = spec
        self._recovery = recovery
        self._opener = opener or _open
        self._replaced = replaced
        self._admission = Admission()
        self._engine: _Running | None = None
        self._in_a_row = 0
        self._work: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._told: float | None = None
        self._untold = 0
        self._rows = 0
        self._unreachable = Unreachable(recovery.max_unreachable_rows, recovery.outage_timeout)
        self._over = asyncio.Event()

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline; after a death, the last one until there is another. Raises before ``start()``."""
        if self._engine is None:
            raise EngineDead("the engine has not been started")
        return self._engine.pipeline

    @property
    def replacing(self) -> bool:
        """Tell whether there is no engine right now."""
        return not self._admission.open

    @property
    def in_flight(self) -> int:
        """Return the rows that the engine has."""
        return self._admission.running

    async def start(self) -> Pipeline:
        """Start the first engine. Raises what its start raises: a job whose engine cannot start is not begun."""
        self._engine = _Running(await self._opener(self._spec))
        self._admission.reopen(0)
        if self._recovery.stall_timeout is not None:
            self._spawn(self._watch(self._recovery.stall_timeout))
        return self._engine.pipeline

    async def stop(self) -> None:
        """Stop the engine; rows that are in flight fail. Idempotent."""
        self._stopping = True
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        if self._engine is not None:
            await self._engine.pipeline.stop()

    async def complete(
        self,
        request: GenerateRequest,
        prepared: Prepared | None = None,
        *,
        deaths: int = 0,
        watch: SuspectWatch | None = None,
    ) -> Completion:
        """Answer one row, on as many engines as it takes.

        Args:
            request: What to ask.
            prepared: The same, templated and tokenized; used for the first attempt.
            deaths: How many engines, of other processes, died while they had this row.
            watch: Told when the row goes to an engine and leaves it, if it was there at a death.

        Raises:
            EngineGone: There will be no engine any more.
            TrunnionError: The row's own error. Its ``code`` is :data:`QUARANTINED` for a row that killed an engine
                which ran nothing else, after it was in flight when two others died.
        """
        first: Prepared | None = prepared

        async def ask(pipeline: Pipeline, deadline: float | None) -> Completion:
            nonlocal first
            item: GenerateRequest | Prepared = first or request
            first = None  # it holds stream stages that see a part of the answer: good for one attempt
            return await collect(pipeline.generate(item if deadline is None else _until(item, deadline)))

        return await self._persist(ask, deaths, watch)

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Embed prompts, on as many engines as it takes; see :meth:`complete` for what it raises."""
        return await self._pooled(lambda pipeline: pipeline.embed(prompts, dimensions=dimensions, adapter=adapter))

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Score texts, on as many engines as it takes; see :meth:`complete` for what it raises."""
        return await self._pooled(lambda pipeline: pipeline.score(query, texts))

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Classify prompts, on as many engines as it takes; see :meth:`complete` for what it raises."""
        return await self._pooled(lambda pipeline: pipeline.classify(prompts))

    async def answer(
        self,
        request: RowRequest,
        prepared: Prepared | None = None,
        *,
        deaths: int = 0,
        watch: SuspectWatch | None = None,
    ) -> RowAnswer:
        """Answer one row of any task; see :meth:`complete`."""
        if isinstance(request, PoolingRequest):
            return await self._pooled(lambda pipeline: pipeline.pool(request), deaths, watch)
        return await self.complete(request, prepared, deaths=deaths, watch=watch)

    async def _pooled(
        self, begin: Callable[[Pipeline], Awaitable[T]], deaths: int = 0, watch: SuspectWatch | None = None
    ) -> T:
        async def ask(pipeline: Pipeline, deadline: float | None) -> T:
            if deadline is None:
                return await begin(pipeline)
            try:
                return await asyncio.wait_for(begin(pipeline), max(0.0, deadline - time.time()))
            except TimeoutError as error:
                raise DeadlineExceeded("the row took longer than row_timeout") from error

        return await self._persist(ask, deaths, watch)

    async def _persist(
        self, ask: Callable[[Pipeline, float | None], Awaitable[T]], deaths: int, watch: SuspectWatch | None
    ) -> T:
        """Answer one row, and end the job where rows fail only because the engine cannot be reached."""
        self._rows += 1
        try:
            answer = await self._repeat(ask, deaths, watch)
        except TrunnionError as error:
            broken = self._unreachable.failed(error, self._rows)
            if broken is None:
                raise
            self._abandon(broken)
            raise EngineGone(broken) from error
        finally:
            self._rows -= 1
        self._unreachable.answered()
        return answer

    async def _repeat(
        self, ask: Callable[[Pipeline, float | None], Awaitable[T]], deaths: int, watch: SuspectWatch | None
    ) -> T:
        deadline: float | None = None
        losses = Losses()
        if deaths > ALONE:
            raise _quarantined(EngineDead("the process that held it ended"))
        while True:
            level = min(deaths, ALONE)
            await self._admission.enter(level)
            engine = self._engine
            assert engine is not None  # nobody enters without one
            if self._recovery.row_timeout is not None:
                deadline = deadline or time.time() + self._recovery.row_timeout
            try:
                if level and watch is not None:
                    await watch.entering()
                answer = await self._attempt(engine, ask, deadline)
            except EngineDead as error:
                deaths += 1
                self._died(engine, error)
                if level == ALONE:  # no progress: where every row kills, as a broken engine has it, the job must end
                    raise _quarantined(error) from error
                continue
            except TrunnionError as error:
                if not self._unreachable.repeats(losses, error, self._recovery.row_retries):
                    raise
                wait = self._wait(error, losses)
                if deadline is not None and time.time() + wait >= deadline:
                    raise
            else:
                self.answered += 1
                self._in_a_row = 0
                return answer
            finally:
                self._admission.leave(level)
                if level and watch is not None:
                    watch.left()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._over.wait()

    async def _attempt(
        self, engine: _Running, ask: Callable[[Pipeline, float | None], Awaitable[T]], deadline: float | None
    ) -> T:
        task = asyncio.current_task()
        assert task is not None  # coroutines run in tasks
        if engine.dead is not None:
            raise engine.dead
        cancelling = task.cancelling()
        engine.tasks.add(task)
        try:
            return await ask(engine.pipeline, deadline)
        except asyncio.CancelledError:
            dead = engine.failure  # asked anew: it changes while the row waits
            if dead is not None and task.uncancel() <= cancelling:
                raise dead from None
            raise
        finally:
            engine.tasks.discard(task)

    def _wait(self, error: TrunnionError, losses: Losses) -> float:
        limit = _BETWEEN_LOOKS if losses.waiting else _LONGEST_WAIT
        longest = min(self._recovery.retry_backoff * 2.0 ** (losses.counted - 1), limit)
        jittered = longest * (0.5 + 0.5 * random.random())  # noqa: S311 - spreads rows, keeps no secret
        return max(error.retry_after or 0.0, jittered)

    def _died(self, engine: _Running, error: EngineDead) -> None:
        """Take note of a death, once for all the rows that tell of it."""
        if engine.dead is not None or engine is not self._engine:
            return
        engine.dead = error
        self.deaths += 1
        self._in_a_row += 1
        suspects = self._admission.running
        self._take_back(engine)
        if self._stopping:
            self._end(error)
            return
        self._tell_death(suspects, error)
        self._spawn(self._replace(engine, error, suspects))

    def _take_back(self, engine: _Running) -> None:
        """Let no row in, and interrupt those that the engine has and did not tell: they may wait for a hung one."""
        self._admission.close()
        for task in list(engine.tasks):
            if task is not asyncio.current_task():
                task.cancel()

    def _abandon(self, error: EngineDead) -> None:
        """Give an engine up that lives, but answers nobody."""
        engine = self._engine
        if engine is not None and engine.dead is None:
            engine.dead = error
            self._take_back(engine)
        self._end(error)

    def _end(self, error: TrunnionError) -> None:
        self._admission.fail(EngineGone(error))
        self._over.set()

    def _tell_death(self, suspects: int, error: EngineDead) -> None:
        """Log a death, but not each one where engines die in a row."""
        now = time.monotonic()
        if self._told is not None and now - self._told < _QUIET:
            self._untold += 1
            return
        more = f"; {self._untold} more died since this was last told" if self._untold else ""
        self._told, self._untold = now, 0
        logger.warning("the engine died with %d rows in flight, and is replaced: %s%s", suspects, error, more)

    async def _replace(self, dead: _Running, error: TrunnionError, suspects: int) -> None:
        with contextlib.suppress(Exception):  # it is dead: what matters is that its processes are gone
            await asyncio.wait_for(dead.pipeline.stop(), _STOP_SECONDS)
        while True:
            if self._in_a_row > self._recovery.max_engine_restarts:
                self._end(_given_up(error, self._in_a_row))
                return
            try:
                pipeline = await self._opener(self._spec)
                if self._replaced is not None:
                    await self._replaced(pipeline)
            except Exception as failure:  # noqa: BLE001 - tried again, and told if it stays
                self._in_a_row += 1
                error = failure if isinstance(failure, TrunnionError) else _start_failed(failure)
                logger.warning("the engine did not start again: %s", failure)
                await asyncio.sleep(min(2.0 ** (self._in_a_row - 1), _LONGEST_WAIT))
            else:
                self._engine = _Running(pipeline)
                logger.log(logging.INFO if self._untold else logging.WARNING, "a new engine runs")
                self._admission.reopen(suspects)
                return

    async def _watch(self, patience: float) -> None:
        """Declare an engine dead that shows no sign of life while it has rows."""
        while True:
            await asyncio.sleep(patience / 4)
            engine = self._engine
            if engine is None or engine.dead is not None:
                continue
            now = time.monotonic()
            signs = self._signs(engine)
            if signs != engine.signs[0] or not engine.tasks:
                engine.signs = signs, now
            elif now - engine.signs[1] >= patience:
                self._died(engine, EngineDead(f"no sign of life from the engine for {patience:g} s (stall_timeout)"))

    def _signs(self, engine: _Running) -> tuple[Any, ...]:
        load = engine.pipeline.load()
        return (
            self.answered,
            len(engine.tasks),
            None if load is None else (load.running, load.waiting, load.kv_cache_usage),
        )

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


async def _open(spec: PipelineSpec) -> Pipeline:
    pipeline = Pipeline(spec)
    await pipeline.start()
    return pipeline


def _until(item: GenerateRequest | Prepared, deadline: float) -> GenerateRequest | Prepared:
    if isinstance(item, GenerateRequest):
        return item if _earlier(item, deadline) else item.with_(deadline=deadline)
    if _earlier(item.request, deadline):
        return item
    return Prepared(request=item.request.with_(deadline=deadline), transducers=item.transducers)


def _earlier(request: GenerateRequest, deadline: float) -> bool:
    return request.deadline is not None and request.deadline <= deadline


def _quarantined(error: EngineDead) -> EngineDead:
    return EngineDead(
        f"the row was set apart: it was in flight when two engines died, and killed a third alone ({error})",
        code=QUARANTINED,
        http_status=500,
        retryable=False,
    )


def _given_up(error: TrunnionError, deaths: int) -> TrunnionError:
    if deaths <= 1:
        return error
    message = f"the engine died or failed to start {deaths} times without an answered row in between; the last: {error}"
    return EngineDead(message, param="max_engine_restarts")


def _start_failed(error: Exception) -> EngineDead:
    made = EngineDead(f"the engine did not start again: {type(error).__name__}: {error}")
    made.__cause__ = error
    return made
