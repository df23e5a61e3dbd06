"""Failures that may pass are tried again before the first token, elsewhere where there is an elsewhere."""

import asyncio
import socket
import time

import pytest
from endpoint_servers import (
    HELLO,
    STREAM_HEAD,
    WHOLE,
    ScriptedServer,
    answer,
    ask,
    chunked,
    engine_at,
    http,
    scripted,
    streamed,
)

from trunnion import collect
from trunnion.errors import InternalError, InvalidArgument, Overloaded, Transient
from trunnion_openai.attempts import Attempts, Shared
from trunnion_openai.config import OpenAIConfig
from trunnion_openai.endpoints import Endpoint, Endpoints
from trunnion_openai.gate import Fixed, Gate
from trunnion_openai.limits import Limits
from trunnion_openai.retry import RetryBudget, backoff


def after(failures, *, otherwise):
    """Return a script that answers the first requests with ``failures``, and then with ``otherwise``."""
    left = list(failures)

    async def script(asked, writer):
        await (left.pop(0) if left else otherwise)(asked, writer)

    return script


async def hang_up(_, writer):
    writer.close()


def unused_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


FAILURES = {
    "429": answer(429, {}),
    "503": answer(503, b"busy"),
    "500": answer(500, {}),
    "408": answer(408, {}),
    "hang-up": hang_up,
    "a cut before the first token": streamed(HELLO[0], end=False),
}


@pytest.mark.parametrize("final", [True, False], ids=["final", "delta"])
@pytest.mark.parametrize("name", FAILURES)
async def test_it_is_sent_again(name, final):
    script = after([FAILURES[name]] * 2, otherwise=answer(200, WHOLE) if final else streamed(*HELLO))
    async with scripted(script, max_retries=2) as (server, engine):
        assert (await collect(engine.generate(ask(final=final)))).text == "Hello"
        assert len(server.asked) == 3


async def test_no_more_often_than_set():
    async with scripted(answer(503, {}), max_retries=3) as (server, engine):
        with pytest.raises(Transient):
            await collect(engine.generate(ask()))
        assert len(server.asked) == 4


@pytest.mark.parametrize("script", [answer(400, {}), answer(429, {}, "x-should-retry: false"), answer(200, b"<html>")])
async def test_what_cannot_pass_is_not_sent_again(script):
    async with scripted(script, max_retries=3) as (server, engine):
        with pytest.raises((InvalidArgument, Overloaded, InternalError)):
            await collect(engine.generate(ask()))
        assert len(server.asked) == 1


async def test_never_after_the_first_token():
    async with scripted(streamed(*HELLO[:3], end=False), max_retries=3) as (server, engine):
        with pytest.raises(Transient):
            await collect(engine.generate(ask()))
        assert len(server.asked) == 1


async def test_retry_after_is_waited_for():
    script = after([answer(429, {}, "Retry-After-Ms: 150")], otherwise=streamed(*HELLO))
    async with scripted(script, max_retries=1) as (_, engine):
        began = time.monotonic()
        await collect(engine.generate(ask()))
        assert time.monotonic() - began >= 0.15


async def test_others_have_the_place_of_one_that_waits():
    script = after([answer(429, {}, "Retry-After: 1")], otherwise=answer(200, WHOLE))
    ended = []

    async def one(engine, name):
        await collect(engine.generate(ask(name, final=True)))
        ended.append(name)

    async with scripted(script, max_retries=1, max_concurrency=1) as (_, engine):
        await asyncio.gather(*(one(engine, name) for name in ("refused", "second", "third")))
    assert ended == ["second", "third", "refused"]


async def test_a_long_retry_after_ends_the_request_and_is_told():
    async with scripted(answer(429, {}, "Retry-After: 61"), max_retries=5) as (server, engine):
        with pytest.raises(Overloaded) as caught:
            await collect(engine.generate(ask()))
        assert caught.value.retry_after == 61.0
        assert len(server.asked) == 1


async def test_nobody_waits_beyond_the_deadline():
    async with scripted(answer(429, {}, "Retry-After: 30"), max_retries=5) as (server, engine):
        with pytest.raises(Overloaded):
            await collect(engine.generate(ask(deadline=time.time() + 1)))
        assert len(server.asked) == 1


def test_waits_double_less_a_jitter():
    config = OpenAIConfig(retry_backoff=1.0, max_retry_wait=5.0)
    for attempt, ceiling in enumerate([1.0, 2.0, 4.0, 5.0, 5.0]):
        waits = [backoff(config, attempt, None) for _ in range(50)]
        assert ceiling / 2 <= min(waits) < max(waits) <= ceiling
    assert 3.0 <= backoff(config, 0, 3.0) <= 3.3


async def test_another_address_takes_over_at_once_and_the_dead_one_rests():
    async with ScriptedServer(streamed(*HELLO)) as server, engine_at(unused_url(), server.url) as engine:
        for _ in range(10):
            assert (await collect(engine.generate(ask()))).text == "Hello"
        dead, alive = engine._http._endpoints.all
        assert len(server.asked) == 10
        assert dead.turn < alive.turn
        assert dead.cool_until > time.monotonic()


async def test_an_address_that_hangs_up_before_the_first_token_is_left_as_well():
    async with (
        ScriptedServer(hang_up) as bad,
        ScriptedServer(streamed(*HELLO)) as good,
        engine_at(bad.url, good.url) as engine,
    ):
        answers = await asyncio.gather(*(collect(engine.generate(ask())) for _ in range(20)))
        assert [one.text for one in answers] == ["Hello"] * 20
        assert len(good.asked) == 20


async def test_all_addresses_dead():
    async with engine_at(unused_url(), unused_url()) as engine:
        with pytest.raises(Transient, match=r"nobody answers at .*; start the endpoint, or correct base_url"):
            await collect(engine.generate(ask()))


async def test_requests_are_spread_by_what_is_in_flight():
    arrived, all_here = [], asyncio.Event()

    async def slow(_, writer):
        arrived.append(1)
        if len(arrived) == 40:
            all_here.set()
        await all_here.wait()
        await streamed(*HELLO)(_, writer)

    async with ScriptedServer(slow) as one, ScriptedServer(slow) as two, engine_at(one.url, two.url) as engine:
        await asyncio.gather(*(collect(engine.generate(ask())) for _ in range(40)))
        assert (one.peak, two.peak) == (20, 20)


def test_the_one_that_rests_is_taken_only_where_there_is_no_other():
    one, two = Endpoint("a"), Endpoint("b")
    both = Endpoints([one, two])
    one.rest(10)
    two.in_flight = 5
    assert both.pick() is two
    two.rest(20)
    assert both.pick() is one  # it will be back first
    assert not both.fresh(frozenset())


def attempts_of(endpoints, *, control=None, **config):
    """Return the attempts of one request over these endpoints."""
    made = OpenAIConfig(**config)
    gate = Gate(control or Fixed(8))
    shared = Shared(
        config=made, endpoints=endpoints, gate=gate, budget=RetryBudget(made.retry_budget), limits=Limits(made)
    )
    return Attempts(shared, None)


async def test_an_overloaded_address_rests_as_long_as_it_asks():
    both = Endpoints([Endpoint("a"), Endpoint("b")])
    attempts = attempts_of(both, max_retries=2, cool_down=1.0)
    first = await attempts.next()
    assert attempts.wait(first, Overloaded("full", retry_after=100.0), lost=False) == 0.0  # the other is asked at once
    assert first.cool_until > time.monotonic() + 50
    assert await attempts.next() is not first


async def test_a_connection_that_was_closed_while_idle_is_no_failure():
    """Servers close idle connections without a word; the next request must not suffer for it."""

    async def script(_, writer):
        writer.write(http(200, b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'))
        await writer.drain()
        writer.close()

    async with scripted(script, max_retries=1) as (server, engine):
        for _ in range(5):
            assert (await collect(engine.generate(ask(final=True)))).text == "a"
        assert server.connections >= 5


async def test_the_streams_end_is_read_so_that_its_connection_is_used_again():
    async def script(_, writer):
        writer.write(STREAM_HEAD)
        for piece in HELLO:
            writer.write(chunked(piece))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with scripted(script) as (server, engine):
        for _ in range(5):
            await collect(engine.generate(ask()))
        assert server.connections == 1
