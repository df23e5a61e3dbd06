"""Requests in flight: many at once, given up, stopped; the server sees every hang-up."""

import asyncio
import contextlib
import time

import pytest
from endpoint_servers import HELLO, STREAM_HEAD, WHOLE, ask, chunked, engine_at, http, scripted, sse, streamed

import trunnion
from trunnion import collect
from trunnion.errors import Cancelled, ConfigError, DeadlineExceeded, EngineDead, InternalError
from trunnion_openai.config import OpenAIConfig
from trunnion_openai.engine import OpenAIEngine

pytestmark = pytest.mark.slow


async def endless(_, writer):
    writer.write(STREAM_HEAD)
    while True:
        writer.write(chunked(HELLO[1]))
        await writer.drain()
        await asyncio.sleep(0.01)


async def silent(_, writer):
    await asyncio.sleep(60)


async def eventually(condition):
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("final", [False, True], ids=["delta", "final"])
async def test_hundreds_at_once_on_one_pool(final):
    """The server answers nobody before all 300 have asked: with a smaller pool this would wait forever."""
    arrived = asyncio.Event()
    count = 0

    async def script(asked, writer):
        nonlocal count
        count += 1
        if count == 300:
            arrived.set()
        await arrived.wait()
        await (streamed(*HELLO)(asked, writer) if not final else _whole(writer))

    async with scripted(script, concurrency="fixed") as (server, engine):
        async with asyncio.timeout(200):
            answers = await asyncio.gather(*(collect(engine.generate(ask(final=final))) for _ in range(300)))
        assert [one.text for one in answers] == ["Hello"] * 300
        assert (server.peak, server.connections) == (300, 300)
        if final:
            return
        before = server.connections
        await asyncio.gather(*(collect(engine.generate(ask(final=final))) for _ in range(300)))
        assert server.connections < before + 100  # they are kept alive


async def _whole(writer):
    import json

    writer.write(http(200, json.dumps(WHOLE).encode()))
    await writer.drain()


async def test_no_more_at_once_than_set():
    async def script(asked, writer):
        await asyncio.sleep(0.02)
        await streamed(*HELLO)(asked, writer)

    async with scripted(script, max_concurrency=4) as (server, engine):
        tasks = [asyncio.ensure_future(collect(engine.generate(ask()))) for _ in range(20)]
        await eventually(lambda: server.running == 4)
        load = engine.load()
        assert (load.running, load.running + load.waiting <= 20, load.capacity) == (4, True, 4)
        await asyncio.gather(*tasks)
        assert server.peak == 4
        assert engine.load().running == engine.load().waiting == 0


async def test_closing_the_stream_hangs_up():
    async with scripted(endless) as (server, engine):
        events = engine.generate(ask())
        await anext(events)
        await events.aclose()
        await eventually(lambda: server.hung_up == 1)
        assert engine.load().running == 0


@pytest.mark.parametrize("final", [False, True], ids=["delta", "final"])
@pytest.mark.parametrize("script", [endless, silent])
async def test_cancelling_hangs_up(script, final):
    async with scripted(script) as (server, engine):
        task = asyncio.ensure_future(collect(engine.generate(ask(final=final))))
        await eventually(lambda: server.running == 1)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: server.hung_up == 1)
        assert engine.load().running == 0


async def test_cancelling_one_that_waits_for_its_turn():
    async with scripted(silent, max_concurrency=1) as (server, engine):
        first = asyncio.ensure_future(collect(engine.generate(ask())))
        await eventually(lambda: server.running == 1)
        second = asyncio.ensure_future(collect(engine.generate(ask())))
        await eventually(lambda: engine.load().waiting == 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert (engine.load().running, engine.load().waiting) == (1, 0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_the_pipelines_deadline_hangs_up():
    async with scripted(endless) as (server, _):
        spec = trunnion.engine_spec("openai", "m", {"base_url": server.url, "check_endpoint": False})
        async with trunnion.open_pipeline(spec) as pipeline:
            with pytest.raises(DeadlineExceeded):
                await pipeline.complete(ask(deadline=time.time() + 0.2))
            await eventually(lambda: server.hung_up == 1)


@pytest.mark.parametrize("script", [endless, silent])
async def test_stopping_ends_what_is_in_flight(script):
    async with scripted(script) as (server, engine):
        tasks = [asyncio.ensure_future(collect(engine.generate(ask()))) for _ in range(5)]
        await eventually(lambda: server.running == 5)
        await engine.stop()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Cancelled] * 5
        await eventually(lambda: server.hung_up == 5)
        with pytest.raises(EngineDead, match="was stopped"):
            await collect(engine.generate(ask()))
        await engine.stop()


async def test_stopping_ends_waits_before_a_repetition():
    async def busy(_, writer):
        writer.write(http(429, b"{}", "Retry-After: 30"))
        await writer.drain()

    async with scripted(busy, max_retries=1) as (server, engine):
        task = asyncio.ensure_future(collect(engine.generate(ask())))
        await eventually(lambda: len(server.asked) == 1)
        await asyncio.sleep(0.05)
        await engine.stop()
        with pytest.raises(Cancelled):
            await task


async def test_stopping_one_that_nobody_reads():
    async with scripted(endless) as (server, engine):
        events = engine.generate(ask())
        await anext(events)
        await engine.stop()
        await eventually(lambda: server.hung_up == 1)
        with pytest.raises(Cancelled):
            async for _ in events:
                pass


async def test_draining_waits():
    async def script(asked, writer):
        await asyncio.sleep(0.2)
        await streamed(*HELLO)(asked, writer)

    async with scripted(script) as (server, engine):
        task = asyncio.ensure_future(collect(engine.generate(ask())))
        await eventually(lambda: server.running == 1)
        await engine.stop(drain=10)
        assert (await task).text == "Hello"


async def test_nothing_is_sent_before_the_first_step():
    async with scripted(streamed(*HELLO)) as (server, engine):
        events = engine.generate(ask())
        await asyncio.sleep(0.05)
        assert server.asked == []
        await events.aclose()


async def test_an_engine_is_used_once():
    async with scripted(streamed(*HELLO)) as (_, engine):
        assert await engine.start() == await engine.start()
        await engine.stop()
        with pytest.raises(ConfigError):
            await engine.start()
    fresh = OpenAIEngine("m", OpenAIConfig(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(InternalError, match="not started"):
        await collect(fresh.generate(ask()))
    await fresh.stop()


async def test_events_are_given_as_they_come():
    step = asyncio.Event()

    async def script(_, writer):
        writer.write(STREAM_HEAD + chunked(HELLO[1]))
        await step.wait()
        for piece in HELLO[2:]:
            writer.write(chunked(piece))
        writer.write(b"0\r\n\r\n")

    async with scripted(script) as (_, engine), contextlib.aclosing(engine.generate(ask())) as events:
        assert (await anext(events)).choices[0].text == "Hel"
        step.set()
        assert [c.text for event in [e async for e in events] for c in event.choices] == ["lo", ""]


async def test_usage_comes_last():
    async with scripted(streamed(*HELLO[:-1], sse(b"[DONE]"))) as (_, engine):
        events = [event async for event in engine.generate(ask())]
        assert [event.usage is not None for event in events] == [False] * (len(events) - 1) + [True]


async def test_two_engines_side_by_side():
    async with scripted(streamed(*HELLO)) as (server, first), engine_at(server.url) as second:
        await first.stop()
        assert (await collect(second.generate(ask()))).text == "Hello"
