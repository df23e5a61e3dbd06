"""The live engine: protocols, shapes, faults, and the settings that none of the other files looks at."""

import asyncio
import json
import time
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sim_lab import ask, ids, job, play, run, settle, sim, text_of

import trunnion as t
from trunnion.errors import (
    AdapterNotFound,
    ConfigError,
    EngineDead,
    InternalError,
    Overloaded,
    Transient,
    UnsupportedFeature,
)
from trunnion_sim import SimConfig
from trunnion_sim.engine import SimEngine
from trunnion_sim.kv_blocks import HASH, block_hashes
from trunnion_sim.kv_feed import KVFeed
from trunnion_sim.presets import PRESETS

STEP = {"base": 0.002}


# --- time by steps


async def test_step_runs_requests_in_common_steps():
    async with sim(step={"base": 0.03}) as engine:
        began = time.perf_counter()
        answers = await asyncio.gather(*(run(engine, ask(str(number))) for number in range(6)))
        assert 0.11 <= time.perf_counter() - began < 1  # four steps for all of them
        assert [answer.usage.completion_tokens for answer in answers] == [4] * 6
        assert engine.load().running == 0


async def test_steps_change_no_token():
    request = ask(max_tokens=20, sampling={"seed": 3})
    plain = await text_of(request)
    assert await text_of(request, step=STEP) == plain
    assert await text_of(request.with_(delivery="final"), step=STEP, max_num_batched_tokens=2) == plain
    assert await text_of(request, step=STEP, tensor_parallel_size=2, data_parallel_size=2) == plain


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(-1, 1)), min_size=1, max_size=8),
    st.sampled_from([{}, {"step": {"base": 1e-4}}, {"ttft": 1e-3, "tpot": 1e-4}]),
)
def test_both_clocks_give_the_same_streams(asked, time_setting):
    """What a request says, and how much of its prompt is cached alone, does not depend on who drives the core."""
    config = {**time_setting, "max_num_seqs": 2, "block_size": 4}

    async def live():
        async with sim(**config) as engine:
            requests = [ids(p, first=100 * i, max_tokens=o, priority=r) for i, (p, o, r) in enumerate(asked)]
            return await asyncio.gather(*(run(engine, request) for request in requests))

    answers = asyncio.run(live())
    jobs = [job(prompt=p, output=o, priority=r) for p, o, r in asked]
    play(config, [(0.0, one) for one in jobs])
    assert [len(answer.choices[0].token_ids) for answer in answers] == [one.progress for one in jobs]
    texts = [asyncio.run(text_of(ids(p, first=100 * i, max_tokens=o))) for i, (p, o, _) in enumerate(asked)]
    assert [answer.text for answer in answers] == texts


async def test_a_slow_reader_holds_nobody_up_where_time_passes():
    async with sim(step=STEP, max_num_seqs=1) as engine:
        reader = engine.generate(ask())
        await anext(reader)
        assert (await run(engine)).usage.completion_tokens == 4  # the first one ended, read or not
        rest = [event async for event in reader]
        assert rest[-1].usage.completion_tokens == 4


def test_two_ways_to_tell_time_do_not_mix():
    with pytest.raises(ConfigError, match="two ways to tell time"):
        t.engine_spec("sim", None, {"step": {"base": 1}, "tpot": 1})


# --- names


def test_old_names_of_settings_still_hold():
    config = t.engine_spec("sim", None, {"slots": 3, "context_length": 99}).config
    assert config == {"max_num_seqs": 3, "max_model_len": 99}
    with pytest.raises(ConfigError, match="another name of max_num_seqs"):
        t.engine_spec("sim", None, {"slots": 3, "max_num_seqs": 4})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_configuration(name):
    config = SimConfig(preset=name)
    assert not config.step.free
    assert config.kv_blocks > 0
    assert SimConfig(preset=name, max_num_seqs=7).max_num_seqs == 7
    assert SimConfig(preset=name, step={"base": 7.0}).step.base == 7.0
    assert SimConfig(preset=name, step={"base": 7.0}).step.per_prompt_token == config.step.per_prompt_token
    spec = t.engine_spec("sim", None, {"preset": name})
    assert SimConfig(**spec.config) == config  # what crosses to a worker means the same


def test_a_preset_that_does_not_exist():
    with pytest.raises(ConfigError, match="h100-8b"):
        t.engine_spec("sim", None, {"preset": "h1000"})


# --- shapes


def test_resources_follow_the_shape():
    def cpus(**config):
        [bundle] = t.get_registry().resources(t.engine_spec("sim", None, config)).bundles
        return bundle.cpu

    assert cpus() == 1
    assert cpus(tensor_parallel_size=2, data_parallel_size=3) == 6
    assert cpus(tensor_parallel_size=2, worker_cpus=0.25) == 0.5


async def test_data_parallel_ranks_are_told():
    async with sim(data_parallel_size=3, max_num_seqs=2) as engine:
        assert engine.info.data_parallel == 3
        assert engine.info.concurrency == engine.load().capacity == 6


# --- prefix cache


async def test_cached_tokens_are_counted_and_salted_apart():
    async with sim(block_size=4) as engine:
        assert (await run(engine, ids(12))).usage.cached_tokens == 0
        assert (await run(engine, ids(12))).usage.cached_tokens == 8
        assert (await run(engine, ids(12, cache_salt="mine"))).usage.cached_tokens == 0
        assert await engine.reset_prefix_cache()
        assert (await run(engine, ids(12))).usage.cached_tokens == 0
        holder = engine.generate(ids(12))
        await anext(holder)
        assert not await engine.reset_prefix_cache()
        await holder.aclose()
        assert await engine.reset_prefix_cache()
    async with sim(enable_prefix_caching=False, block_size=4) as engine:
        await run(engine, ids(12))
        assert (await run(engine, ids(12))).usage.cached_tokens == 0
        assert engine.info.kv_layout is None


async def test_kv_events_are_numbered_and_told_to_all():
    async with sim(kv_events=True, block_size=4, adapters=("a",)) as engine:
        assert engine.info.kv_layout == t.KVLayout(block_size=4, hash=HASH)
        assert "emits_kv_events/1" in engine.info.capabilities.protocols
        await run(engine, ids(9))
        await run(engine, ids(9, adapter="a"))
        await engine.reset_prefix_cache()
        early, late = engine.kv_events(), engine.kv_events()
        events = [await anext(early) for _ in range(3)]
        assert [await anext(late) for _ in range(3)] == events
        waiting = asyncio.ensure_future(anext(early))
        await settle()
        assert not waiting.done()
        await run(engine, ids(5, first=50))
        assert (await waiting)["type"] == "stored"
    assert [(event["type"], event["seq"], event["rank"]) for event in events] == [
        ("stored", 0, 0), ("stored", 1, 0), ("cleared", 2, 0)
    ]  # fmt: skip
    assert events[0]["block_hashes"] == tuple(block_hashes(range(9), 4))
    assert events[1]["adapter"] == "a"
    assert [event async for event in late][-1]["block_hashes"] == tuple(block_hashes(range(50, 55), 4))  # then it ends


async def test_without_kv_events_there_are_none():
    async with sim() as engine:
        assert "emits_kv_events/1" not in engine.info.capabilities.protocols
        with pytest.raises(UnsupportedFeature):
            engine.kv_events()
    with pytest.raises(ConfigError, match="enable_prefix_caching"):
        t.engine_spec("sim", None, {"kv_events": True, "enable_prefix_caching": False})


async def test_a_reader_that_falls_behind_is_told():
    feed = KVFeed(kept=2)

    def add(rank):
        feed.log(rank, {"type": "cleared"})
        feed.flush()

    add(0)
    reader = feed.read(lambda: True)
    assert (await anext(reader))["seq"] == 0
    for rank in (0, 1, 0, 0):
        add(rank)
    rest = [event async for event in reader]
    assert [(event["type"], event["rank"], event["seq"]) for event in rest] == [
        ("lost", 0, 1), ("lost", 1, 0), ("cleared", 0, 2), ("cleared", 0, 3)
    ]  # fmt: skip
    assert rest[0]["missing"] == 1


# --- adapters


async def test_adapters_come_and_go_while_it_runs():
    ref = t.AdapterRef(name="new", path="sim://new")
    with pytest.raises(AdapterNotFound, match="/nonexistent"):
        async with sim() as other:
            await other.load_adapter(t.AdapterRef(name="lost", path="/nonexistent/adapter"))
    async with sim(adapters=("old",)) as engine:
        assert isinstance(engine, t.HotAdapters)
        with pytest.raises(AdapterNotFound):
            await run(engine, ask(adapter="new"))
        await engine.load_adapter(ref)
        await engine.load_adapter(ref)
        assert await engine.list_adapters() == [t.AdapterRef(name="old", path=""), ref]
        assert (await run(engine, ask(adapter="new"))).text != (await run(engine)).text
        assert engine.load().adapters == ("old", "new")
        await engine.unload_adapter("new")
        for again in (run(engine, ask(adapter="new")), engine.unload_adapter("new")):
            with pytest.raises(AdapterNotFound):
                await again
        assert engine.load().adapters == ("old",)


async def test_lora_load_seconds_and_max_loras():
    async with sim(adapters=("a", "b"), max_loras=1, lora_load_seconds=0.1) as engine:
        began = time.perf_counter()
        await run(engine, ask(adapter="a"))
        assert time.perf_counter() - began < 0.1
        await run(engine, ask(adapter="b"))
        assert time.perf_counter() - began >= 0.1
        assert engine.load().adapters == ("b",)
        began = time.perf_counter()
        await engine.load_adapter(t.AdapterRef(name="c", path="p"))
        assert time.perf_counter() - began >= 0.1


# --- what it shows of itself


async def test_unsupported_features_are_gone():
    lacking = ("tools", "output_format.*", "sampling.logprobs", "embeds/1")
    async with sim(unsupported=lacking) as engine:
        capabilities = engine.info.capabilities
        assert {capabilities.support(f) for f in ("tools", "output_format.choice", "sampling.logprobs")} == {"no"}
        assert capabilities.support("tool_choice") == "yes"
        assert "embeds/1" not in capabilities.protocols
    with pytest.raises(ConfigError, match="no feature or protocol"):
        t.engine_spec("sim", None, {"unsupported": ["colour"]})


async def test_load_report_interval():
    async with sim(load_report_interval=60.0) as engine:
        before = engine.load()
        reader = engine.generate(ask())
        await anext(reader)
        assert engine.load() is before
        await reader.aclose()
    async with sim(load_report_interval=0.0) as engine:
        reader = engine.generate(ask())
        await anext(reader)
        assert engine.load().running == 1
        assert engine.load().kv_cache_usage > 0
        await reader.aclose()


async def test_scheduling_policy_fcfs_has_no_priority():
    async with sim(scheduling_policy="fcfs") as engine:
        assert engine.info.capabilities.support("priority") is t.Support.NO
    async with t.open_pipeline(t.engine_spec("sim", None, {"scheduling_policy": "fcfs"})) as pipeline:
        with pytest.raises(UnsupportedFeature, match="scheduling_policy"):
            await pipeline.complete(ask(priority=1))


async def test_it_is_started_first():
    with pytest.raises(EngineDead, match="not started"):
        await run(SimEngine(None, SimConfig()))


# --- faults


async def outcomes(engine, count):
    answers = await asyncio.gather(*(run(engine, ask(str(i))) for i in range(count)), return_exceptions=True)
    return [type(answer).__name__ for answer in answers]


async def test_fault_rate_strikes_its_share_and_the_same_ones_again():
    async with sim(fault="refuse", fault_rate=0.3) as engine:
        first = await outcomes(engine, 200)
    async with sim(fault="refuse", fault_rate=0.3) as engine:
        assert await outcomes(engine, 200) == first
    async with sim(fault="refuse", fault_rate=0.3, seed=1) as engine:
        assert await outcomes(engine, 200) != first
    assert 30 < first.count("Overloaded") < 90


async def test_faults_strike_by_number_and_marker():
    faults = [
        {"kind": "refuse", "requests": [1, 3]},
        {"kind": "die", "marker": "4", "after": 2},
        {"kind": "refuse", "marker": "5", "rate": 0.0},
    ]
    async with sim(faults=faults) as engine:
        expected = ["Completion", "Overloaded", "Completion", "Overloaded", "Transient", "Completion"]
        assert await outcomes(engine, 6) == expected


async def test_faults_hold_for_a_time():
    async with sim(faults=[{"kind": "refuse", "at": 3600.0}]) as engine:
        await run(engine)
    async with sim(faults=[{"kind": "refuse", "until": 0.2}]) as engine:
        with pytest.raises(Overloaded):
            await run(engine)
        await asyncio.sleep(0.25)
        await run(engine)


async def test_a_node_crashes_at_its_time():
    async with sim(faults=[{"kind": "crash_node", "at": 0.05}]) as engine:
        await engine.check_health()
        reader = asyncio.ensure_future(run(engine, ask(max_tokens=4)))
        await reader
        await asyncio.sleep(0.1)
        with pytest.raises(EngineDead):
            await engine.check_health()


async def test_a_slow_node_takes_longer():
    async with sim(ttft=0.02, faults=[{"kind": "slow_node", "factor": 5.0}]) as engine:
        began = time.perf_counter()
        await run(engine)
        assert time.perf_counter() - began >= 0.1


@pytest.mark.parametrize("setting", [{"step": STEP}, {}, {"tpot": 0.001}])
async def test_hang_before_and_within_a_stream(setting):
    for after in (0, 2):
        async with sim(fault="hang", fault_after=after, **setting) as engine:
            seen = []

            async def read():
                async with aclosing(engine.generate(ask())) as events:
                    async for event in events:
                        seen.append(event)  # noqa: B023

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read(), 0.2)
            assert len(seen) == after
            assert engine.load().running == 0


async def test_malformed_output():
    async with sim(fault="malformed") as engine:
        text = (await run(engine, ask(output_format=t.JsonObject(), max_tokens=100))).text
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
        tools = ({"function": {"name": "f", "parameters": {"type": "object"}}},)
        [call] = (await run(engine, ask(tools=tools, max_tokens=100))).choices[0].tool_calls
        with pytest.raises(json.JSONDecodeError):
            json.loads(call.arguments)
        assert "\ufffd" in (await run(engine)).text


async def test_no_usage():
    async with sim(fault="no_usage") as engine:
        assert [event.usage async for event in engine.generate(ask())] == [None] * 4
    async with t.open_pipeline(t.engine_spec("sim", None, {"fault": "no_usage"})) as pipeline:
        with pytest.raises(InternalError, match="without usage"):
            await pipeline.complete(ask())


async def test_a_fault_in_the_queue_frees_its_place():
    async with sim(fault="die", fault_marker="boom", max_num_seqs=1, step=STEP) as engine:
        answers = await asyncio.gather(*(run(engine, ask(text)) for text in ("boom", "fine")), return_exceptions=True)
    assert isinstance(answers[0], Transient)
    assert answers[1].usage.completion_tokens == 4
