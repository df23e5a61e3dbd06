"""Check that a slot is freed however its request ends."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trunnion.engine import LoadReport
from trunnion.errors import DeadlineExceeded, EngineDead, TrunnionError
from trunnion.requests import GenerateRequest

from . import advice
from ._guard import Suite
from .asking import Ask, drained
from .mount import SOON, Mount, best_of

_TOO_SHORT = (
    f"the answer ended before it could be interrupted; {advice.SLOWER}; "
    "or the engine never lets others run (no await between tokens)"
)
_BESIDE = 64
"""Requests of the many that run side by side, at most."""
_MUCH_LONGER = 20
"""How many times longer than usual an answer may take before the slots it needs count as lost."""
_ids = itertools.count()


class FreeingChecks(Suite):
    """Hold for requests that are given up, and for many that are not.

    Attributes:
        many: Requests that must leave nothing behind.
    """

    many: ClassVar[int] = 1000

    @pytest.mark.trunnion_restart
    def test_closing_a_stream_frees_its_slot(self, ask: Ask) -> None:
        """``aclose()`` in mid-stream returns, and frees the slot, within a second."""
        mount, request = ask.mount, ask.prepared(**ask.long())

        async def attempt() -> str | None:
            stream = mount.engine.generate(request)
            event = await anext(stream)
            assert event.usage is None, _TOO_SHORT
            began = time.monotonic()
            await stream.aclose()
            return await _late(mount, began)

        assert mount.run(best_of(attempt)) is None, "closing a stream does not free its slot in time"

    @pytest.mark.parametrize("delivery", ["delta", "final"])
    @pytest.mark.trunnion_restart
    def test_cancelling_the_task_frees_its_slot(self, ask: Ask, delivery: str) -> None:
        """Cancelling the consuming task ends it within a second, and frees the slot."""
        mount, request = ask.mount, ask.prepared(**ask.long(delivery=delivery))

        async def attempt() -> str | None:
            task = await _running(mount, request)
            assert not task.done(), _TOO_SHORT
            began = time.monotonic()
            task.cancel()
            await asyncio.wait({task}, timeout=SOON)
            if not task.done():
                return "the task was cancelled and goes on"
            if not task.cancelled():
                task.exception()
                return "the cancellation was swallowed, or turned into something else"
            return await _late(mount, began)

        wrong = mount.run(best_of(attempt))
        assert wrong is None, wrong

    @pytest.mark.trunnion_restart
    def test_answers_come_after_many_were_given_up(self, ask: Ask) -> None:
        """After more requests were cancelled than run at once, a new one is answered as before."""
        mount = ask.mount
        began = time.monotonic()
        expected = ask().text
        usual = time.monotonic() - began
        request = ask.prepared(**ask.long())

        async def give_up() -> LoadReport | None:
            count = min(2 * mount.info.concurrency, 2 * _BESIDE)
            tasks = [asyncio.ensure_future(drained(mount, request)) for _ in range(count)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return await mount.settled(10 * SOON)

        report = mount.run(give_up())
        assert report is None or report.running + report.waiting == 0, (
            f"of those given up, {report.running} still run and {report.waiting} wait: their slots are lost"
        )
        again = mount.run(
            mount.pipeline.complete(ask.request()), timeout=min(mount.patience, max(20.0, _MUCH_LONGER * usual))
        )
        assert again.text == expected

    @pytest.mark.trunnion_restart
    def test_a_deadline_ends_the_request(self, ask: Ask) -> None:
        """A deadline that has passed, before or in mid-stream, is DeadlineExceeded, and the slot is free again."""
        mount = ask.mount
        late = ask.request(**ask.long(), deadline=time.time() - 1)
        with pytest.raises(DeadlineExceeded):
            mount.run(mount.pipeline.complete(late))

        async def slowly() -> None:
            request = ask.request(**ask.long())
            async with aclosing(mount.pipeline.generate(request)) as first:
                async for event in first:  # what is slow about a first request is over
                    assert event.usage is None, _TOO_SHORT
                    break
            deadline = time.time() + 0.5
            async with aclosing(mount.pipeline.generate(request.with_(deadline=deadline))) as events:
                async for _ in events:
                    await asyncio.sleep(max(0.0, deadline + 0.05 - time.time()))

        with pytest.raises(DeadlineExceeded):
            mount.run(slowly())
        report = mount.run(mount.settled())
        assert report is None or report.running + report.waiting == 0, (
            f"after the deadline the report still counts {report.running} running and {report.waiting} waiting"
        )

    @pytest.mark.trunnion_restart
    def test_many_requests_leave_nothing_behind(self, ask: Ask) -> None:
        """A thousand requests leave no slot, task, thread or file descriptor."""
        mount = ask.mount
        request = ask.prepared(**{**ask.long(), **ask.only_if("sampling.max_tokens", max_tokens=2)})

        async def rounds(count: int) -> None:
            numbers = iter(range(count))

            async def client() -> None:
                for _ in numbers:
                    await drained(mount, request.with_(request_id=f"kit-{next(_ids)}"))

            await asyncio.gather(*(client() for _ in range(min(mount.info.concurrency, _BESIDE))))
            await mount.settled()

        def left() -> tuple[int, int, int]:
            tasks = mount.run(_count_tasks())
            return tasks, threading.active_count(), _descriptors()

        mount.run(rounds(min(self.many, 2 * _BESIDE)))  # pools and caches fill
        tasks, threads, files = left()
        mount.run(rounds(self.many), timeout=900)
        more = left()
        report = mount.load()
        assert report is None or (report.running, report.waiting) == (0, 0), "slots are still held"
        assert more[0] <= tasks, "tasks were left behind"
        assert more[1] <= threads + 2, "threads were left behind"
        assert more[2] <= files + 8, "file descriptors were left behind"

    @pytest.mark.trunnion_last
    def test_stopping_ends_what_is_in_flight(self, ask: Ask) -> None:
        """``stop()`` in mid-stream ends requests with a typed error, may be called twice, and nothing runs after it."""
        mount, request = ask.mount, ask.prepared(**ask.long())
        engine = mount.engine

        async def stop() -> list[BaseException | None]:
            task = await _running(mount, request)
            assert not task.done(), _TOO_SHORT
            await engine.stop()
            await asyncio.wait({task}, timeout=10)
            assert task.done(), "a request in flight hangs after stop()"
            await engine.stop()
            later = asyncio.ensure_future(drained(mount, request))
            await asyncio.wait({later}, timeout=10)
            assert later.done(), "a request after stop() hangs"
            return [task.exception(), later.exception()]

        in_flight, later = mount.run(stop())
        mount.close()
        assert isinstance(in_flight, TrunnionError), f"what was in flight ended with {in_flight!r}"
        assert isinstance(later, TrunnionError), f"a request after stop() ended with {later!r}"


class StartingChecks(Suite):
    """Hold for starting and stopping."""

    def test_starting_twice_gives_the_same(self, mounted: Mount) -> None:
        """``start()`` on a started engine returns what it returned, and disturbs nothing."""
        again = mounted.run(mounted.engine.start())
        assert (again.engine, again.model, again.context_length) == (
            mounted.info.engine,
            mounted.info.model,
            mounted.info.context_length,
        )

    def test_stopping_before_starting(self, mount: Mount) -> None:
        """``stop()`` on an engine that never started returns, twice; such an engine does not start any more."""
        from trunnion.registry import get_registry

        async def stop() -> None:
            engine = get_registry().build_engine(mount.spec)
            async with asyncio.timeout(60):
                await engine.stop()
                await engine.stop()
                with pytest.raises(TrunnionError):
                    await engine.start()
                await engine.stop()

        asyncio.run(stop())

    def test_it_is_healthy(self, mounted: Mount) -> None:
        """``check_health()`` returns while the engine runs."""
        from trunnion.engine import ProbesHealth

        if isinstance(mounted.engine, ProbesHealth):
            mounted.run(mounted.engine.check_health())

    @pytest.mark.trunnion_last
    def test_a_stopped_engine_is_not_healthy(self, mounted: Mount) -> None:
        """``check_health()`` raises EngineDead once the engine was stopped."""
        from trunnion.engine import ProbesHealth

        engine = mounted.engine
        mounted.run(engine.stop())
        try:
            if isinstance(engine, ProbesHealth):
                with pytest.raises(EngineDead):
                    mounted.run(engine.check_health())
        finally:
            mounted.close()


async def _running(mount: Mount, request: GenerateRequest) -> asyncio.Task[Any]:
    """Return a task that consumes a stream and has been admitted."""
    started = asyncio.Event()

    async def consume() -> None:
        async with aclosing(mount.engine.generate(request)) as events:
            async for _ in events:
                started.set()
        started.set()

    task = asyncio.ensure_future(consume())
    if request.delivery == "delta":
        with suppress(TimeoutError):
            await asyncio.wait_for(started.wait(), 60)
    else:
        end = time.monotonic() + 0.05
        while not task.done() and time.monotonic() < end:
            report = mount.load()
            if report is not None and report.running:
                break
            await asyncio.sleep(0)
    return task


async def _late(mount: Mount, began: float) -> str | None:
    """Return what is wrong if the slot is still held, or was freed too late."""
    report = await mount.settled(SOON)
    if report is not None and report.running + report.waiting:
        return "the slot is still held a second later"
    return None if time.monotonic() - began < 2 * SOON else "freeing the slot took too long"


async def _count_tasks() -> int:
    await asyncio.sleep(0)
    return len(asyncio.all_tasks())


def _descriptors() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except FileNotFoundError:  # no procfs here
        return 0
