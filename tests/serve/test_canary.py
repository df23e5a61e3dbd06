"""The canary tells an engine that stands still from one that is busy, and the replica is replaced."""

import asyncio
import os
import signal
from dataclasses import replace

import httpx
import psutil
import pytest

import trunnion
from trunnion.engine import LoadReport
from trunnion_ray.serve.canary import Canary
from vllm_cpu import VLLM_CPU

from .conftest import chat, wait_until


class Stuck:
    """A pipeline whose engine answers when it is told to."""

    def __init__(self, pipeline, steps=None, others=0):
        self.info = pipeline.info
        self.engine = self
        self.steps, self.others = steps, others
        self.asked = asyncio.Event()
        self.release = asyncio.Event()

    async def generate(self, request):
        self.asked.set()
        await self.release.wait()
        yield None

    def load(self):
        return LoadReport(running=1 + self.others, waiting=0, timestamp=0.0, steps=self.steps)


@pytest.fixture
async def pipeline():
    async with trunnion.open_pipeline(trunnion.engine_spec("sim", "sim")) as opened:
        yield opened


def hatch(pipeline, **settings):
    told = asyncio.get_running_loop().create_future()
    canary = Canary(pipeline, **{"period": 0.01, "timeout": 0.2, "dead": told.set_result, **settings})
    canary._embeds = False
    canary.start()
    return canary, told


async def test_an_engine_that_stands_still_is_dead(pipeline):
    canary, told = hatch(Stuck(pipeline, steps=7))
    assert "neither answered nor made a step in 0.2 s" in await asyncio.wait_for(told, 30)
    canary.close()


async def test_one_that_makes_steps_is_busy(pipeline):
    stuck = Stuck(pipeline, steps=7)
    canary, told = hatch(stuck)
    for _ in range(8):
        await asyncio.sleep(0.1)
        stuck.steps += 1
    assert not told.done()
    canary.close()


@pytest.mark.parametrize(("others", "dead"), [(0, True), (3, False)])
async def test_without_steps_only_an_idle_engine_is_judged(pipeline, others, dead):
    canary, told = hatch(Stuck(pipeline, others=others), timeout=0.05)
    if dead:
        await asyncio.wait_for(told, 30)
    else:
        await asyncio.sleep(0.5)
        assert not told.done()
    canary.close()


async def test_a_real_engine_answers(pipeline):
    canary, told = hatch(pipeline)
    await asyncio.sleep(0.5)
    assert not told.done()
    canary.close()


async def test_an_endpoint_is_never_asked(pipeline):
    stuck = Stuck(pipeline, steps=1)
    capabilities = replace(stuck.info.capabilities, protocols=stuck.info.capabilities.protocols | {"relays/1"})
    stuck.info = replace(stuck.info, capabilities=capabilities)
    canary, told = hatch(stuck)
    await asyncio.sleep(0.3)
    assert not stuck.asked.is_set()
    assert not told.done()
    canary.close()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.engine
@pytest.mark.timeout(600)
def test_a_stopped_vllm_is_replaced(proxy_lab):
    from trunnion_demo import model_path

    model = {
        "name": "m", "engine": "vllm", "model": str(model_path()), "env_vars": VLLM_CPU,
        "config": {"enforce_eager": True, "max_model_len": 512}, "ray_actor_options": {"num_cpus": 0.5},
        "canary_period_s": 1.0, "canary_timeout_s": 5.0,
    }  # fmt: skip
    proxy_lab("run", name="stopped", app={"models": [model]}, timeout=300)
    try:
        wait_until(lambda: proxy_lab.post("stopped", chat()).status_code == 200, timeout=120)
        (pid,) = proxy_lab("pids", name="stopped")["m"]
        cores = [p for p in psutil.Process(pid).children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]
        assert cores
        for core in cores:
            os.kill(core.pid, signal.SIGSTOP)
        wait_until(lambda: proxy_lab("pids", name="stopped")["m"] not in ([], [None], [pid]), timeout=180)
        wait_until(lambda: not any(core.is_running() for core in cores), timeout=60)
        wait_until(lambda: _tokens(proxy_lab) == 4, timeout=180)
    finally:
        proxy_lab("delete", name="stopped", timeout=120)


def _tokens(lab):
    """Return how many tokens were answered; none while the replica is being replaced."""
    try:
        answer = lab.post("stopped", chat())
    except httpx.HTTPError:
        return None
    return answer.json()["usage"]["completion_tokens"] if answer.status_code == 200 else None
