"""Stop the shared engine; so this file comes last."""

import asyncio
import multiprocessing
from types import SimpleNamespace

import psutil
import pytest

from trunnion.completion import collect
from trunnion.errors import Cancelled, EngineDead
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]


def engine_processes():
    """Return the engine's processes: vLLM starts them through multiprocessing, and each may start more."""
    started = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    return [process for parent in started for process in (parent, *parent.children(recursive=True))]


async def test_stop_lets_short_requests_end_and_gives_up_long_ones(engine, monkeypatch):
    now = 0.0  # for as long as the short one takes on this machine
    monkeypatch.setattr("trunnion_vllm.engine.time", SimpleNamespace(monotonic=lambda: now))

    def events(tokens, n=1):
        sampling = SamplingParams(ignore_eos=True, max_tokens=tokens, n=n, temperature=1.0)
        return engine.generate(GenerateRequest(prompt=TextPrompt(text="On and on"), sampling=sampling))

    processes = engine_processes()
    assert processes
    short = events(20)
    await anext(short)
    waiting = [asyncio.create_task(collect(events(500, n=20))) for _ in range(2)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(engine.stop(drain=2.0))
    assert [event async for event in short][-1].usage.completion_tokens == 20
    now = 3.0
    with pytest.raises(EngineDead, match="stopped"):
        await anext(events(1))
    await asyncio.gather(stopping, engine.stop())
    for task in waiting:
        with pytest.raises(Cancelled):
            await task
    assert multiprocessing.active_children() == []
    assert [process for process in processes if process.is_running()] == []
    assert engine.load().running == 0
    with pytest.raises(EngineDead):
        await engine.start()
