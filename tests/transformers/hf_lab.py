"""What the tests of this folder share; a module of its own, since every folder has a conftest."""

import asyncio
from contextlib import aclosing

from trunnion.completion import collect
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt
from trunnion_transformers.config import TransformersConfig

SETTINGS = {
    "dtype": "float32", "page_size": 16, "num_blocks": 256, "threads": 1, "max_model_len": 512,
    "max_requests_per_batch": 16,
}  # fmt: skip
PROMPT = "The morning light came over the hills and"


def config(**values):
    return TransformersConfig(**{**SETTINGS, "gc_freeze": False, **values})


def ask(prompt=PROMPT, *, fields=None, **values):
    """Return a request, greedy and of 12 tokens unless told otherwise."""
    values = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, **values}
    prompt = TextPrompt(text=prompt) if isinstance(prompt, str) else prompt
    return GenerateRequest(prompt=prompt, sampling=SamplingParams(**values), **(fields or {}))


async def events(engine, *args, **values):
    async with aclosing(engine.generate(ask(*args, **values))) as stream:
        return [event async for event in stream]


async def complete(engine, *args, **values):
    async with aclosing(engine.generate(ask(*args, **values))) as stream:
        return await collect(stream)


async def first(engine, *args, **values):
    return (await complete(engine, *args, **values)).choices[0]


async def idle(engine):
    """Wait until the library itself holds no request."""
    scheduler = engine._runner._manager.scheduler
    async with asyncio.timeout(10):
        while scheduler.active_requests or scheduler.waiting_requests or engine.load().running:
            await asyncio.sleep(0.01)
    return engine.load()
