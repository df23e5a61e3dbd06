"""How an engine ends: stopped, drained, dead. Each test has an engine of its own."""

import asyncio
import gc
import threading
import weakref

import pytest
from hf_lab import ask, config, first

from trunnion.completion import collect
from trunnion.errors import Cancelled, ConfigError, EngineDead, InternalError, ModelNotFound
from trunnion_transformers.engine import TransformersEngine

pytestmark = pytest.mark.engine


@pytest.fixture
async def own(model):
    engine = TransformersEngine(model, config(max_model_len=2048, num_blocks=1024))
    yield engine
    await engine.stop()


def threads():
    """Return the threads that engines started; asyncio's own workers may stay."""
    return {t for t in threading.enumerate() if not t.name.startswith(("MainThread", "asyncio_", "pytest"))}


async def test_stop_lets_short_requests_end_and_gives_up_long_ones(own):
    before = threads()
    await own.start()
    assert len(threads() - before) == 1
    model = weakref.ref(own._runner._manager.model)
    short = own.generate(ask(max_tokens=20))
    await anext(short)
    waiting = [asyncio.create_task(collect(own.generate(ask(max_tokens=1900, n=8)))) for _ in range(2)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(own.stop(drain=2.0))
    assert [event async for event in short][-1].usage.completion_tokens == 20
    with pytest.raises(EngineDead, match="stopped"):
        await anext(own.generate(ask()))
    await asyncio.gather(stopping, own.stop())
    for task in waiting:
        with pytest.raises(Cancelled):
            await task
    assert not threads() - before
    assert own.load().running == 0
    assert model() is None  # freed without a collection
    for call in (own.start, own.check_health):
        with pytest.raises(EngineDead):
            await call()


async def test_stop_before_start(own):
    await own.stop()
    await own.stop(drain=1.0)
    with pytest.raises(EngineDead):
        await own.start()


async def test_stop_while_starting(own):
    before = threads()
    starting = asyncio.create_task(own.start())
    await asyncio.sleep(0)
    stopping = asyncio.create_task(own.stop())
    with pytest.raises((Cancelled, EngineDead)):
        await starting
    await stopping
    assert not threads() - before


async def test_a_start_that_is_given_up_leaves_nothing(own):
    before = threads()
    starting = asyncio.create_task(own.start())
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with asyncio.timeout(60):
        while own._lock.locked() or threads() - before:
            await asyncio.sleep(0.05)


async def test_nothing_runs_before_start(own):
    with pytest.raises(InternalError, match="not started"):
        await anext(own.generate(ask()))


async def test_an_error_in_the_engine_s_thread_ends_everyone(own, monkeypatch):
    before = threads()
    await own.start()
    tasks = [asyncio.create_task(first(own, max_tokens=400, fields={"delivery": d})) for d in ("delta", "final")]
    while not own.load().running:
        await asyncio.sleep(0.005)

    def broken(*args, **kwargs):
        raise RuntimeError("the memory is gone")

    monkeypatch.setattr(own._runner._manager, "_generation_step", broken)
    for task in tasks:
        with pytest.raises(EngineDead, match="the memory is gone") as caught:
            await task
        assert isinstance(caught.value.__cause__, RuntimeError)
    for later in (first(own), own.check_health()):
        with pytest.raises(EngineDead, match="the memory is gone"):
            await later
    assert own.load().running == 0
    await own.stop()
    assert not threads() - before


async def test_the_heap_is_frozen_while_it_runs(model):
    engine = TransformersEngine(model, config(gc_freeze=True))
    await engine.start()
    assert gc.get_freeze_count() > 0
    await engine.stop()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("model_name", "values", "error", "param"),
    [
        ("/nowhere/at/all", {}, ModelNotFound, "model"),
        (None, {"device": "cuda"}, ConfigError, "device"),
        (None, {"adapters": {"a": "/nowhere"}}, ConfigError, "adapters.a"),
        (None, {"num_blocks": 10**9}, ConfigError, "num_blocks"),
        (None, {"max_model_len": 2049}, ConfigError, "max_model_len"),
        (None, {"max_model_len": 500, "num_blocks": 20}, ConfigError, "max_model_len"),
        (None, {"attention": "flash_attention_2"}, ConfigError, "attention"),
    ],
)
async def test_what_cannot_start_says_why(model, model_name, values, error, param):
    engine = TransformersEngine(model_name or model, config(**values))
    with pytest.raises(error) as caught:
        await engine.start()
    assert param is None or caught.value.param == param
    await engine.stop()


async def test_a_model_without_a_tokenizer_takes_token_ids(model, tmp_path):
    import shutil

    for file in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(f"{model}/{file}", tmp_path)
    engine = TransformersEngine(str(tmp_path), config())
    info = await engine.start()
    assert (info.tokenizer, info.capabilities.prompts) == (None, ("token_ids",))
    await engine.stop()


async def test_engines_side_by_side_stop_in_any_order(model):
    before = threads()
    one, two = TransformersEngine(model, config()), TransformersEngine(model, config())
    await asyncio.gather(one.start(), two.start())
    answers = await asyncio.gather(first(one), first(two))
    assert answers[0].token_ids == answers[1].token_ids
    await one.stop()
    assert (await first(two)).token_ids == answers[0].token_ids
    await two.stop()
    assert not threads() - before
