"""Helpers of the simulator's tests: an engine on this loop, and a core on a clock of its own."""

import asyncio
from contextlib import asynccontextmanager

import trunnion as t
from trunnion_sim import SimConfig
from trunnion_sim.core import SimCore
from trunnion_sim.engine import SimEngine
from trunnion_sim.jobs import Job


@asynccontextmanager
async def sim(**config):
    engine = SimEngine(None, SimConfig(**config))
    engine.info = await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def ask(text="the quick brown fox", *, max_tokens=4, **fields):
    sampling = {"max_tokens": max_tokens, **fields.pop("sampling", {})}
    return t.GenerateRequest(**{"prompt": t.TextPrompt(text=text), "sampling": t.SamplingParams(**sampling), **fields})


def ids(count, *, first=0, **fields):
    """Ask with so many token ids as the prompt."""
    return ask(prompt=t.TokensPrompt(token_ids=tuple(range(first, first + count))), **fields)


async def settle():
    """Let every task run as far as it can; independent of the clock."""
    for _ in range(5):
        await asyncio.sleep(0)


async def run(engine, req=None):
    return await t.collect(engine.generate(req or ask()))


async def text_of(req=None, **config):
    async with sim(**config) as engine:
        return (await run(engine, req)).text


def play(config, arrivals):
    """Run jobs, given as (time, Job), on a core to the end. Returns the core and every event.

    The clock goes by what the core says is due, and stops where nothing is.
    """
    core = SimCore(SimConfig(**config))
    events = []
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])
    for _ in range(100_000):
        due = core.due
        if waiting and (due is None or waiting[0][0] <= due):
            now, job = waiting.pop(0)
            core.add(job, now)
        elif due is None:
            return core, events
        else:
            events.extend(core.step(due))
    raise AssertionError("the core never comes to rest")


def job(*, prompt=8, output=4, **fields):
    return Job(prompt=prompt, output=output, **fields)
