"""Limits of a job hold over all its replicas: the adapter divides, the engine says how."""

import dataclasses

import pytest

import trunnion
from trunnion import get_registry
from trunnion.errors import ConfigError
from trunnion_openai import PLUGIN, OpenAIConfig, divide
from trunnion_openai.limits import Limits
from trunnion_ray.data import ProcessorConfig


class Clock:
    """Stand still until somebody sets the time."""

    now = 0.0

    def __call__(self):
        return self.now


def config(**fields):
    return {"base_url": "http://localhost:1/v1", **fields}


@pytest.mark.parametrize(("concurrency", "share"), [(1, None), (4, 0.25), ((1, 8), 0.125)])
def test_replicas_share_what_is_the_jobs(concurrency, share):
    job = ProcessorConfig(engine="openai", config=config(requests_per_minute=600), concurrency=concurrency)
    made = job.pipeline_spec().engine.config
    assert made.get("limit_share") == share
    assert made["requests_per_minute"] == 600


def test_a_share_is_divided_further():
    assert divide(OpenAIConfig(limit_share=0.5), 5) == {"limit_share": 0.1}


def test_the_replicas_together_send_what_the_job_may():
    """Four replicas that always have something to send, on a clock of their own."""
    spec = trunnion.engine_spec("openai", "m", config(requests_per_minute=600, tokens_per_minute=60_000))
    sent, tokens = 0, 0
    for _ in range(4):
        clock = Clock()
        limits = Limits(OpenAIConfig(**get_registry().divided(spec, 4).config), clock)
        while clock.now <= 60:
            clock.now += limits.take(50)
            sent, tokens = sent + 1, tokens + 50
    assert 590 <= sent <= 600 + 2 * 4
    assert tokens <= 60_000


def test_engines_that_say_nothing_stay_as_they_are():
    spec = trunnion.engine_spec("sim", None, {"tpot": 0.001})
    assert get_registry().divided(spec, 4) is spec


def test_what_a_plugin_changes_is_checked(monkeypatch):
    broken = dataclasses.replace(PLUGIN, divide=lambda _config, _replicas: {"limit_share": 7})
    registry = get_registry()
    monkeypatch.setattr(registry, "engine", lambda _name: broken)
    with pytest.raises(ConfigError, match="limit_share"):
        registry.divided(trunnion.EngineSpec(engine="openai", config=config()), 2)
