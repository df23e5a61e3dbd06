"""Sleep and wake, on a stand-in: no CPU build of vLLM can sleep."""

import asyncio

import pytest
from fake_llm import FakeLLM

from trunnion.engine import AdapterRef
from trunnion.errors import ConfigError, EngineDead, InvalidArgument, Transient, UnsupportedFeature
from trunnion.requests import GenerateRequest, TextPrompt
from trunnion_vllm.config import VLLMConfig
from trunnion_vllm.engine import VLLMEngine


@pytest.fixture
def engine():
    engine = VLLMEngine("model")
    engine._llm = FakeLLM()
    return engine


async def first(engine):
    return await anext(engine.generate(GenerateRequest(prompt=TextPrompt(text="x"))))


async def test_a_sleeping_engine_refuses_requests_and_says_why(engine):
    await engine.sleep()
    await engine.sleep()
    for refused in (
        first(engine),
        engine.embed([TextPrompt(text="x")]),
        engine.load_adapter(AdapterRef(name="a", path="b")),
        engine.reset_prefix_cache(),
    ):
        with pytest.raises(Transient, match=r"sleeps; wake\(\) it") as caught:
            await refused
        assert (caught.value.code, caught.value.retryable) == ("engine_asleep", True)
    await engine.check_health()
    await engine.wake()
    await engine.wake()
    assert engine._llm.calls == [("sleep", 1), ("health",), ("wake_up", None)]
    assert not engine._sleeper.asleep


async def test_waking_from_discarded_weights_reads_them_and_the_adapters_again(engine, monkeypatch):
    async def again():
        engine._llm.calls.append(("adapters",))

    monkeypatch.setattr(engine._adapters, "load_again", again)
    await engine.sleep(level=2)
    with pytest.raises(InvalidArgument, match="sleeps at level 2"):
        await engine.sleep(level=1)
    await engine.wake()
    assert engine._llm.calls[1:] == [
        ("wake_up", ["weights"]),
        ("reload_weights",),
        ("adapters",),
        ("wake_up", ["kv_cache"]),
    ]


async def test_sleep_waits_for_what_is_in_flight_and_refuses_what_comes(engine):
    engine._meter.in_flight = 1
    sleeping = asyncio.create_task(engine.sleep())
    await asyncio.sleep(0.03)
    assert engine._llm.calls == []
    with pytest.raises(Transient):
        await first(engine)
    engine._meter.in_flight = 0
    await sleeping
    assert engine._llm.calls == [("sleep", 1)]


async def test_an_engine_whose_sleep_was_given_up_is_awake(engine):
    engine._meter.in_flight = 1
    sleeping = asyncio.create_task(engine.sleep())
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    engine._meter.in_flight = 0
    assert not engine._sleeper.asleep


async def test_stopping_ends_a_sleep_that_waits(engine):
    engine._meter.in_flight = 1
    sleeping = asyncio.create_task(engine.sleep())
    await asyncio.sleep(0)
    await engine.stop()
    engine._meter.in_flight = 0
    with pytest.raises(EngineDead, match="stopped"):
        await sleeping


async def test_without_sleep_mode_there_is_no_sleep(engine):
    with pytest.raises(InvalidArgument, match="level"):
        await engine.sleep(level=3)
    engine._llm.vllm_config.model_config.enable_sleep_mode = False
    with pytest.raises(UnsupportedFeature, match="enable_sleep_mode"):
        await engine.sleep()


@pytest.mark.engine
def test_a_cpu_build_refuses_sleep_mode(vllm_environment, model):
    from trunnion_vllm.launch import configure

    with pytest.raises(ConfigError, match="leep mode is not supported"):
        configure(model, VLLMConfig(engine_kwargs={"enable_sleep_mode": True}))
