"""Keys are held to their limits, each to its own, and are told when to come back."""

from contextlib import aclosing

import httpx
import pytest

import trunnion
from trunnion import GenerateRequest, TextPrompt, get_registry
from trunnion.errors import ConfigError, Overloaded
from trunnion.events import Usage
from trunnion.hooks import RequestSummary
from trunnion_http import HTTPSettings, ModelDirectory, PipelineModel, create_app
from trunnion_limits import RateLimitsConfig
from trunnion_limits.hooks import RateLimits


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def request(tenant=None):
    return GenerateRequest(prompt=TextPrompt(text="x"), tenant=tenant)


def admitted(limits, tenant=None, most=1000):
    """Return how many requests are admitted now, and the wait that the next one is told."""
    for count in range(most):
        try:
            limits.before_request(request(tenant))
        except Overloaded as refusal:
            return (count, refusal.retry_after) if refusal.code == "rate_limit_exceeded" else (-1, 0.0)
    return most, 0.0


def test_requests_come_back_with_time(clock):
    limits = RateLimits(RateLimitsConfig(requests_per_minute=30), clock)
    assert admitted(limits) == (30, pytest.approx(2.0))
    clock.now += 1.9
    assert admitted(limits)[0] == 0
    clock.now += 0.2
    assert admitted(limits)[0] == 1
    clock.now += 3600
    assert admitted(limits)[0] == 30


def test_each_key_has_its_own(clock):
    config = RateLimitsConfig(
        requests_per_minute=2,
        keys={"big": {"requests_per_minute": 5}, "free": {}, "anonymous": {"requests_per_minute": 1}},
    )
    limits = RateLimits(config, clock)
    counts = {name: admitted(limits, name, most=50)[0] for name in ("a", "b", "big", "free", None)}
    assert counts == {"a": 2, "b": 2, "big": 5, "free": 50, None: 1}


def test_tokens_are_counted_when_they_are_known(clock):
    limits = RateLimits(RateLimitsConfig(tokens_per_minute=60), clock)
    usage = Usage(prompt_tokens=50, completion_tokens=30)
    limits.before_request(request())
    limits.before_request(request())
    limits.after_response(RequestSummary(request=request(), usage=usage, seconds=1.0))
    count, wait = admitted(limits)
    assert count == 0
    assert wait == pytest.approx(21.0)  # twenty tokens too many, at one a second, and one to begin with
    clock.now += 21.5
    assert admitted(limits, most=3)[0] == 3


def test_a_request_that_failed_costs_what_it_used(clock):
    limits = RateLimits(RateLimitsConfig(tokens_per_minute=10), clock)
    limits.on_error(RequestSummary(request=request(), usage=None, seconds=1.0))
    assert admitted(limits, most=2)[0] == 2
    limits.on_error(RequestSummary(request=request(), usage=Usage(prompt_tokens=10, completion_tokens=1), seconds=1.0))
    assert admitted(limits)[0] == 0


def test_keys_that_are_gone_are_forgotten(clock, monkeypatch):
    monkeypatch.setattr("trunnion_limits.hooks._KEYS", 10)
    limits = RateLimits(RateLimitsConfig(requests_per_minute=1), clock)
    for number in range(100):
        limits.before_request(request(f"key-{number}"))
    assert len(limits._buckets) == 10


async def test_without_a_limit_the_pipeline_calls_nothing():
    async with trunnion.open_pipeline(trunnion.engine_spec("sim", "sim")) as pipeline:
        assert not pipeline.has_request_hooks
    limited = trunnion.PipelineSpec(
        engine=trunnion.engine_spec("sim", "sim"), hooks={"rate_limits": {"requests_per_minute": 1}}
    )
    async with trunnion.open_pipeline(limited) as pipeline:
        assert pipeline.has_request_hooks


@pytest.mark.parametrize("wrong", [{"requests_per_minute": 0}, {"keys": {"a": {"request_per_minute": 1}}}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="rate_limits"):
        get_registry().check_hooks({"rate_limits": wrong})


async def test_tokens_of_an_answer_that_was_left_count():
    hooks = {"rate_limits": {"tokens_per_minute": 5}}
    engine = trunnion.engine_spec("sim", "sim", config={"tpot": 0.01})
    spec = trunnion.PipelineSpec(engine=engine, hooks=hooks)
    asked = GenerateRequest(prompt=TextPrompt(text="x"), sampling=trunnion.SamplingParams(max_tokens=500))
    async with trunnion.open_pipeline(spec) as pipeline:
        async with aclosing(pipeline.generate(asked)) as events:
            for _ in range(8):
                await anext(events)
        with pytest.raises(Overloaded) as refused:
            await pipeline.complete(asked)
    assert refused.value.code == "rate_limit_exceeded"


async def test_over_http(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("small: one\nbig: two\n")
    hooks = {"rate_limits": {"requests_per_minute": 1, "keys": {"big": {"requests_per_minute": 3}}}}
    spec = trunnion.PipelineSpec(engine=trunnion.engine_spec("sim", "sim"), hooks=hooks)
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    async with trunnion.open_pipeline(spec) as pipeline:
        app = create_app(ModelDirectory([PipelineModel("m", pipeline)]), HTTPSettings(api_keys_file=str(keys)))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as web:
            statuses = {}
            for name, key in (("small", "one"), ("big", "two")):
                statuses[name] = []
                for _ in range(4):
                    answer = await web.post("/v1/chat/completions", json=body, headers={"x-api-key": key})
                    statuses[name].append(answer.status_code)
                assert answer.json()["error"]["code"] == "rate_limit_exceeded"
                assert int(answer.headers["retry-after"]) >= 1
    assert statuses == {"small": [200, 429, 429, 429], "big": [200, 200, 200, 429]}
