"""Stop the shared engine; so this file comes last."""

import asyncio
import multiprocessing
import os
import subprocess

import pytest

from trunnion.completion import collect
from trunnion.errors import Cancelled, EngineDead
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]


def processes():
    """List the children of this process, those that have ended and were not reaped among them.

    Ray's, which other tests of the same run may have started, are none of the engine's.
    """
    out = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, check=True)
    lines = out.stdout.decode().splitlines()
    others = ("resource_tracker", "ps -o", "/ray/", "ray::")
    return [line for line in lines if not any(other in line for other in others)]


async def test_stop_lets_short_requests_end_and_gives_up_long_ones(engine):
    def events(tokens, n=1):
        sampling = SamplingParams(ignore_eos=True, max_tokens=tokens, n=n, temperature=1.0)
        return engine.generate(GenerateRequest(prompt=TextPrompt(text="On and on"), sampling=sampling))

    short = events(20)
    await anext(short)
    waiting = [asyncio.create_task(collect(events(500, n=20))) for _ in range(2)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(engine.stop(drain=2.0))
    assert [event async for event in short][-1].usage.completion_tokens == 20
    with pytest.raises(EngineDead, match="stopped"):
        await anext(events(1))
    await asyncio.gather(stopping, engine.stop())
    for task in waiting:
        with pytest.raises(Cancelled):
            await task
    assert multiprocessing.active_children() == []
    assert processes() == []
    assert engine.load().running == 0
    with pytest.raises(EngineDead):
        await engine.start()
