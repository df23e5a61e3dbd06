"""Run an engine of two ranks, then kill it; print what was seen as JSON. Started by a test as a script of its own.

Left without a ``__main__`` guard on purpose: vLLM's processes must not run a user's script again.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import sys

import psutil

from trunnion.completion import collect
from trunnion.errors import TrunnionError
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt
from trunnion_vllm.config import VLLMConfig
from trunnion_vllm.engine import VLLMEngine


def request(prompt, **values):
    values = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, **values}
    return GenerateRequest(prompt=TextPrompt(text=prompt), sampling=SamplingParams(**values))


async def outcome(awaitable):
    try:
        await awaitable
    except TrunnionError as error:
        return type(error).__name__
    return "ok"


def lives(rank):
    try:
        return rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def main(model, settings, prompts):
    engine = VLLMEngine(model, VLLMConfig(**settings, tensor_parallel_size=2))
    info = await engine.start()
    answers = [await collect(engine.generate(request(prompt))) for prompt in prompts]
    seen = {"tensor_parallel": info.details["tensor_parallel"], "answers": [a.choices[0].token_ids for a in answers]}
    stream = asyncio.create_task(collect(engine.generate(request(prompts[0], max_tokens=None))))
    await asyncio.sleep(0.5)
    (core,) = multiprocessing.active_children()
    ranks = psutil.Process(core.pid).children(recursive=True)
    os.kill(core.pid, signal.SIGKILL)
    seen["stream"] = await outcome(asyncio.wait_for(stream, 30))
    seen["health"] = await outcome(engine.check_health())
    seen["next"] = await outcome(collect(engine.generate(request(prompts[0]))))
    seen["running"] = engine.load().running
    await engine.stop()
    seen["children"] = len(multiprocessing.active_children())
    seen["ranks"] = [len(ranks) >= 2, sum(lives(rank) for rank in ranks)]
    print(json.dumps(seen))


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
