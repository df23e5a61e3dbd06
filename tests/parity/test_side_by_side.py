"""Several engines live in one process, and stop in any order without leaving anything behind."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import threading
from collections.abc import Awaitable, Callable

import psutil
import pytest

import trunnion
from trunnion import GenerateRequest, MessagesPrompt, Pipeline, SamplingParams, SyncPipeline
from trunnion_demo import model_path

from .engines import PLAIN

MIB = 2**20
LIGHT = [("sim", {}), ("transformers", {"dtype": "float32"}), ("sim", {"seed": 1})]


def spec(engine: str, config: dict) -> trunnion.EngineSpec:
    return trunnion.engine_spec(engine, None if engine == "sim" else str(model_path()), config)


def request() -> GenerateRequest:
    sampling = SamplingParams(temperature=0.0, max_tokens=PLAIN.max_tokens)
    return GenerateRequest(prompt=MessagesPrompt(messages=PLAIN.messages), sampling=sampling)


class Left:
    """Tell what is there now that was not there before: threads, processes, file descriptors, memory."""

    def __init__(self) -> None:
        self.threads, self.files = set(threading.enumerate()), psutil.Process().num_fds()
        self.children = set(multiprocessing.active_children())
        self.memory = psutil.Process().memory_info().rss

    def check(self, *, memory: int, rounds: int, files: int = 2) -> None:
        gc.collect()
        left = set(threading.enumerate()) - self.threads
        assert len(left) < rounds, left  # one per round is a leak, whatever it is called
        left = {thread for thread in left if "ThreadPool" not in thread.name}
        assert [thread for thread in left if not thread.name.startswith(("asyncio_", "Thread-"))] == []
        assert set(multiprocessing.active_children()) - self.children == set()
        assert psutil.Process().num_fds() - self.files <= files
        assert (psutil.Process().memory_info().rss - self.memory) / MIB < memory


async def in_any_order(engines: list[tuple[str, dict]], order: random.Random) -> None:
    """Start all of them on one loop, use them side by side, and stop them in some order, some in use."""
    pipelines = [Pipeline(spec(*engine)) for engine in engines]
    await asyncio.gather(*(pipeline.start() for pipeline in pipelines))
    answers = await asyncio.gather(*(pipeline.complete(request()) for pipeline in pipelines))
    for (engine, _), answer in zip(engines, answers, strict=True):
        assert engine == "sim" or answer.text.strip() == PLAIN.expected
    order.shuffle(pipelines)
    for pipeline in pipelines:
        running = asyncio.ensure_future(pipeline.complete(request()))
        await asyncio.sleep(0)
        await pipeline.stop()
        await asyncio.gather(running, return_exceptions=True)


def twenty_times(run: Callable[[], Awaitable[None]], rounds: int = 20) -> None:
    asyncio.run(run())  # the first one loads libraries, whose threads and memory stay
    before = Left()
    for _ in range(rounds):
        asyncio.run(run())
    before.check(memory=200, rounds=rounds)


@pytest.mark.engine
def test_engines_stop_in_any_order_and_leave_nothing_twenty_times_over() -> None:
    order = random.Random(0)
    twenty_times(lambda: in_any_order(LIGHT, order))


@pytest.mark.engine
def test_each_engine_may_have_a_loop_of_its_own() -> None:
    before = loops()
    pipelines = [SyncPipeline(spec(*engine)) for engine in LIGHT]
    texts = [pipeline.complete([request()])[0].text.strip() for pipeline in pipelines]
    assert texts[1] == PLAIN.expected
    assert len(loops() - before) == len(LIGHT)
    for pipeline in random.Random(1).sample(pipelines, k=len(pipelines)):
        pipeline.close()
    assert loops() - before == set()


def loops() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("trunnion-loop")}


@pytest.mark.engine
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_vllm_beside_the_others_twenty_times_over() -> None:
    order = random.Random(0)
    settings = {"enforce_eager": True, "max_model_len": 512, "dtype": "float32"}
    twenty_times(lambda: in_any_order([*LIGHT, ("vllm", settings)], order))
