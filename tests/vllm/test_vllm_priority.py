"""A queue goes by priority, where the engine was told to."""

import asyncio

import pytest
from vllm_settings import SETTINGS

from trunnion.completion import collect
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt
from trunnion_vllm.config import VLLMConfig
from trunnion_vllm.engine import VLLMEngine

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.asyncio(loop_scope="session")]


async def test_a_lower_number_runs_first(vllm_environment, model):
    further = {**SETTINGS["engine_kwargs"], "scheduling_policy": "priority"}
    engine = VLLMEngine(model, VLLMConfig(**{**SETTINGS, "engine_kwargs": further, "max_num_seqs": 1}))
    info = await engine.start()
    try:
        assert info.capabilities.support("priority") == "yes"
        ended = []

        async def run(priority, tokens=4):
            sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
            request = GenerateRequest(prompt=TextPrompt(text="Once"), sampling=sampling, priority=priority)
            await collect(engine.generate(request))
            ended.append(priority)

        first = asyncio.create_task(run(0, tokens=200))
        while not engine.load().running:
            await asyncio.sleep(0.01)
        await asyncio.gather(first, *(run(priority) for priority in (5, 1, 3)))
        assert ended == [0, 1, 3, 5]
    finally:
        await engine.stop()
