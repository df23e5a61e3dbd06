"""Limits per minute hold, those of the settings and those an endpoint tells; budgets and weights have their effect."""

import asyncio
import json
import time
from collections import Counter

import pytest
from endpoint_servers import HELLO, WHOLE, ScriptedServer, answer, ask, engine_at, http, scripted, streamed

from trunnion import TextPrompt, Usage, collect
from trunnion.errors import InternalError, Overloaded, Transient
from trunnion_openai import OpenAIConfig
from trunnion_openai.endpoints import Endpoint, Endpoints
from trunnion_openai.limits import Bucket, Limits, Quota, duration, estimate
from trunnion_openai.prices import Prices, cost
from trunnion_openai.retry import RESERVE, RetryBudget

FAILING = {"500": (answer(500, {}), InternalError), "503": (answer(503, {}), Transient)}


class Clock:
    """Stand still until somebody sets the time."""

    now = 0.0

    def __call__(self):
        return self.now


# Limits of the settings


def test_requests_go_one_by_one_at_the_rate():
    clock = Clock()
    bucket = Bucket(60, 1, clock)
    assert [bucket.take(1) for _ in range(4)] == pytest.approx([0, 1, 2, 3])
    clock.now = 100.0  # a pause saves up one request, no more
    assert [bucket.take(1) for _ in range(3)] == pytest.approx([0, 1, 2])


def test_what_was_not_used_is_given_back():
    clock = Clock()
    limits = Limits(OpenAIConfig(tokens_per_minute=6000), clock)  # a hundred a second
    assert limits.take(100) == 0
    limits.give_back(0, 60)
    assert limits.take(60) == 0
    limits.give_back(0, -100)  # more was used than was estimated
    assert limits.take(0) == pytest.approx(1.0)


def test_a_request_larger_than_the_limit_goes_after_its_time():
    limits = Limits(OpenAIConfig(tokens_per_minute=60), Clock())
    assert limits.take(61) == pytest.approx(60.0)


def test_no_limit_no_wait():
    limits = Limits(OpenAIConfig(), Clock())
    assert [limits.take(10**9) for _ in range(100)] == [0] * 100


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "x" * 396}], "max_tokens": 10}, 110),
        ({"messages": [], "max_completion_tokens": 10, "n": 3}, 30),
        ({"prompt": [1, 2, 3], "max_tokens": 4}, 7),
        ({"prompt": "x" * 40}, 266),
        ({"input": ["x" * 40, [1, 2, 3]]}, 13),
        ("anything", 256),
    ],
)
def test_what_a_request_is_estimated_to_take(body, tokens):
    assert estimate(body) == tokens


@pytest.mark.parametrize("final", [True, False], ids=["plain", "stream"])
@pytest.mark.parametrize("limit", [{"requests_per_minute": 600}, {"tokens_per_minute": 600 * 7, "context_length": 9}])
async def test_the_engine_keeps_to_the_limits(limit, final, monkeypatch):
    """Nobody sleeps; the waits that the limits asked for are what is looked at."""
    waits = []
    taken = Limits.take

    def take(self, tokens):
        waits.append(taken(self, tokens))
        return 0.0

    monkeypatch.setattr(Limits, "take", take)
    script = answer(200, WHOLE) if final else streamed(*HELLO)
    async with scripted(script, **limit) as (_, engine):
        began = time.monotonic()
        for _ in range(30):  # of 7 tokens each by their usage, 10 a second
            await collect(engine.generate(ask(final=final, sampling={"max_tokens": 6})))
        assert max(waits) >= 2.9 - (time.monotonic() - began) - (1.1 if "tokens_per_minute" in limit else 0)
        assert len(waits) == 30


async def test_the_limits_of_relays_and_embeddings(monkeypatch):
    given = []
    monkeypatch.setattr(Limits, "give_back", lambda _self, _requests, tokens: given.append(tokens))

    async def script(asked, writer):
        inputs = asked.body.get("input") or []
        data = [{"index": i, "embedding": [0.5]} for i in range(len(inputs))]
        body = {"data": data, "usage": {"prompt_tokens": 6, "total_tokens": 6}}
        writer.write(http(200, json.dumps(body).encode()))
        await writer.drain()

    async with scripted(script) as (_, engine):
        await engine.embed([TextPrompt(text="x" * 40)])
        await engine.relay({"prompt": "x" * 40, "max_tokens": 5}, path="/completions")
    assert given == [10 - 6, 15 - 6]


# What the endpoint tells


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("2d", 172800),
        ("7", 7),
        ("soon", None),
        ("", None),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


def told(kind, left, reset):
    return {f"x-ratelimit-remaining-{kind}": str(left), f"x-ratelimit-reset-{kind}": reset}


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_nothing_is_sent_where_nothing_is_left_until_the_reset(kind):
    clock = Clock()
    quota = Quota(1.0, 60.0, clock)
    assert quota.wait(10) == 0
    quota.heard(quota.spend(10), told(kind, 0, "5s"))
    assert quota.wait(10) == 5
    clock.now = 3.0
    assert quota.wait(10) == 2
    clock.now = 5.0
    assert quota.wait(10) == 0


def test_what_was_sent_since_counts():
    quota = Quota(1.0, 60.0, Clock())
    first = quota.spend(10)
    quota.spend(10)
    quota.spend(10)
    quota.heard(first, told("requests", 3, "5s"))  # of the three, two are on their way
    assert quota.wait(10) == 0
    quota.spend(10)
    assert quota.wait(10) == 5
    tokens = Quota(1.0, 60.0, Clock())
    tokens.heard(tokens.spend(10), told("tokens", 25, "5s"))
    assert (tokens.wait(25), tokens.wait(26)) == (0, 5)


def test_a_replica_takes_its_share_of_what_is_left():
    quota = Quota(0.25, 60.0, Clock())
    quota.heard(quota.spend(1), told("requests", 8, "5s"))
    for _ in range(2):
        assert quota.wait(1) == 0
        quota.spend(1)
    assert quota.wait(1) == 5


@pytest.mark.parametrize(
    "headers", [{}, told("requests", 0, "1h"), told("requests", "no", "5s"), told("requests", 0, "?")]
)
def test_headers_that_say_nothing_of_use(headers):
    quota = Quota(1.0, 60.0, Clock())
    quota.heard(quota.spend(1), headers)
    assert quota.wait(1) == 0


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("final", [True, False], ids=["plain", "stream"])
async def test_the_engine_reads_the_headers(status, final):
    headers = [f"{name}: {value}" for name, value in told("requests", 0, "50s").items()]
    body = WHOLE if status == 200 else {}
    async with scripted(answer(status, body, *headers)) as (server, engine):
        try:
            await collect(engine.generate(ask(final=final)))
        except Overloaded:
            assert status == 429
        (endpoint,) = engine._http._endpoints.all
        assert 40 < endpoint.quota.wait(1) <= 50
        task = asyncio.ensure_future(collect(engine.generate(ask(final=final))))
        await asyncio.sleep(0.05)
        assert len(server.asked) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_address_with_something_left_is_asked_instead():
    headers = [f"{name}: {value}" for name, value in told("requests", 0, "50s").items()]
    async with (
        ScriptedServer(answer(200, WHOLE, *headers)) as spent,
        ScriptedServer(answer(200, WHOLE)) as other,
        engine_at(spent.url, other.url) as engine,
    ):
        for _ in range(6):
            await collect(engine.generate(ask(final=True)))
        assert (len(spent.asked), len(other.asked)) == (1, 5)


# The budget of repetitions


def test_a_budget_is_a_share_of_the_requests_and_a_few_more():
    budget = RetryBudget(0.25)
    assert sum(budget.spend() for _ in range(100)) == RESERVE
    for _ in range(40):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10
    for _ in range(10**6):
        budget.earn()
    assert sum(budget.spend() for _ in range(10**4)) <= RESERVE + 250  # nobody saves up for an outage of their own
    assert not RetryBudget(0.0).spend()


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
async def test_an_outage_does_not_multiply_the_load(name, share):
    script, kind = FAILING[name]
    async with scripted(script, max_retries=5, retry_budget=share, max_concurrency=10) as (server, engine):
        outcomes = await asyncio.gather(*(collect(engine.generate(ask())) for _ in range(100)), return_exceptions=True)
    assert {type(one) for one in outcomes} == {kind}
    allowed = 0 if share == 0 else RESERVE + 100 * share
    assert allowed - 2 <= len(server.asked) - 100 <= allowed
    assert outcomes[-1].details["retry_budget"] == "used up"


# Weights


def test_requests_one_after_another_are_shared_by_weight():
    ends = Endpoints([Endpoint("a", weight=3), Endpoint("b", weight=1)])
    assert Counter(ends.pick().url for _ in range(400)) == {"a": 300, "b": 100}


def test_requests_in_flight_are_shared_by_weight():
    ends = Endpoints([Endpoint("a", weight=3), Endpoint("b", weight=1)])
    for _ in range(40):
        ends.pick().in_flight += 1
    assert [one.in_flight for one in ends.all] == [30, 10]


def test_one_that_was_away_does_not_make_up_for_it():
    ends = Endpoints([Endpoint("a"), Endpoint("b")])
    ends.all[1].rest(3600)
    for _ in range(100):
        ends.pick()
    ends.all[1].cool_until = 0.0
    assert Counter(ends.pick().url for _ in range(10)) == {"a": 5, "b": 5}


def test_weight_zero_stands_by():
    ends = Endpoints([Endpoint("a", weight=0), Endpoint("b", weight=1)])
    assert {ends.pick().url for _ in range(20)} == {"b"}
    ends.all[1].rest(3600)
    assert ends.pick().url == "a"


async def test_the_setting_of_weights():
    async with (
        ScriptedServer(answer(200, WHOLE)) as one,
        ScriptedServer(answer(200, WHOLE)) as two,
        engine_at(one.url, two.url, weights=(4, 1)) as engine,
    ):
        for _ in range(50):
            await collect(engine.generate(ask(final=True)))
        assert (len(one.asked), len(two.asked)) == (40, 10)


# Prices


def test_what_tokens_cost():
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=500_000, cached_tokens=250_000)
    assert cost(usage, Prices(input=2.0, output=8.0)) == pytest.approx(2.0 + 4.0)
    assert cost(usage, Prices(input=2.0, cached_input=1.0, output=8.0)) == pytest.approx(1.5 + 0.25 + 4.0)


async def test_prices_are_told_to_whoever_counts():
    prices = {"input": 2.0, "output": 8.0}
    async with scripted(answer(200, WHOLE), prices=prices) as (_, engine):
        assert engine.info.details["prices"] == {"input": 2.0, "cached_input": 2.0, "output": 8.0}
    async with scripted(answer(200, WHOLE)) as (_, engine):
        assert "prices" not in engine.info.details
