"""Measure the framework's own share with pytest-benchmark: each figure is for 100 requests on an engine that does
nothing. ``make bench`` runs them; compare two commits with ``--benchmark-autosave`` and ``--benchmark-compare``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from noop_engine import noop_pipeline
from trunnion import GenerateRequest, LoopThread, MessagesPrompt, Pipeline, SamplingParams, TokensPrompt, collect

REQUESTS = 100
SAMPLING = SamplingParams(temperature=0.0, max_tokens=16)
TOKENS = TokensPrompt(token_ids=[1, 2, 3, 4, 5, 6, 7, 8])
MESSAGES = MessagesPrompt(messages=({"role": "user", "content": "What is the capital of France?"},))


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="module")
def pipeline(loop: LoopThread) -> Iterator[Pipeline]:
    pipeline = noop_pipeline()
    loop.run(pipeline.start())
    yield pipeline
    loop.run(pipeline.stop())


def requests(prompt: MessagesPrompt | TokensPrompt, delivery: str) -> list[GenerateRequest]:
    return [
        GenerateRequest(prompt=prompt, sampling=SAMPLING, delivery=delivery, request_id=str(number))
        for number in range(REQUESTS)
    ]


@pytest.mark.parametrize("delivery", ["delta", "final"])
@pytest.mark.parametrize("layer", ["engine", "pipeline"])
def test_events(benchmark: BenchmarkFixture, loop: LoopThread, pipeline: Pipeline, layer: str, delivery: str) -> None:
    source = pipeline.engine if layer == "engine" else pipeline
    asked = requests(TOKENS, delivery)

    async def run() -> int:
        return sum([len((await collect(source.generate(request))).choices) for request in asked])

    assert benchmark(lambda: loop.run(run())) == REQUESTS


def test_prepare_messages(benchmark: BenchmarkFixture, pipeline: Pipeline) -> None:
    """Template and tokenize a block of 100 short conversations."""
    prepared = benchmark(pipeline.prepare, requests(MESSAGES, "final"))
    assert all(hasattr(one, "request") for one in prepared)


def test_a_hundred_side_by_side(benchmark: BenchmarkFixture, loop: LoopThread, pipeline: Pipeline) -> None:
    """Run a block as the batch adapter does: template, tokenize, one task per row, text made of token ids."""

    async def run() -> int:
        prepared = pipeline.prepare(requests(MESSAGES, "final"))
        done = await asyncio.gather(*[collect(pipeline.generate(one)) for one in prepared])
        return len(done)

    assert benchmark(lambda: loop.run(run())) == REQUESTS
