import asyncio
import re
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from sim_lab import ask, run, settle, sim, text_of

import trunnion as t
from trunnion.errors import AdapterNotFound, Cancelled, ConfigError, ContextOverflow, EngineDead, Overloaded, Transient
from trunnion_sim import SimConfig
from trunnion_sim.engine import SimEngine
from trunnion_sim.faults import FaultRule
from trunnion_sim.step_time import StepTime


async def test_the_same_seed_and_prompt_give_the_same_text():
    text = await text_of()
    assert text == await text_of()
    assert text == await text_of(ttft=0.01, tokens_per_event=3, max_num_seqs=1)
    assert text == await text_of(ask(delivery="final"))


def test_the_same_text_in_every_process():
    code = "import trunnion; print(trunnion.generate('hi', engine='sim', max_tokens=6))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert runs == {t.generate("hi", engine="sim", max_tokens=6) + "\n"}


async def test_seeds_prompts_and_choices_differ():
    texts = [
        await text_of(),
        await text_of(seed=1),
        await text_of(ask(sampling={"seed": 1})),
        await text_of(ask("another prompt")),
        await text_of(ask(adapter="a"), adapters=("a",)),
    ]
    assert len(set(texts)) == len(texts)


async def test_n_choices_and_their_usage():
    async with sim(tokens_per_event=2) as engine:
        events = [e async for e in engine.generate(ask(max_tokens=5, sampling={"n": 3}))]
    made = t.Completion()
    for e in events:
        made.add(e)
    assert len({choice.text for choice in made.choices}) == 3
    assert [len(choice.token_ids) for choice in made.choices] == [5, 5, 5]
    assert [choice.finish_reason for choice in made.choices] == ["length"] * 3
    assert [e.usage is not None for e in events] == [False] * (len(events) - 1) + [True]
    assert made.usage == t.Usage(prompt_tokens=4, completion_tokens=15)


async def test_one_event_for_a_final_delivery():
    async with sim() as engine:
        [only] = [e async for e in engine.generate(ask(delivery="final"))]
    assert only.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (t.TextPrompt(text="one, two"), 3),
        (t.TextPrompt(text=""), 1),
        (t.TokensPrompt(token_ids=(5, 6, 7)), 3),
        (t.MessagesPrompt(messages=({"role": "user", "content": [{"type": "text", "text": "a b"}]},)), 4),
        (t.MessagesPrompt(messages=({"role": "user", "content": None},)), 2),
    ],
)
async def test_prompt_tokens_are_counted(prompt, tokens):
    async with sim() as engine:
        assert (await run(engine, ask(prompt=prompt))).usage.prompt_tokens == tokens


# --- every setting has an effect


async def timed(req=None, **config):
    async with sim(**config) as engine:
        began = time.perf_counter()
        await run(engine, req)
        return time.perf_counter() - began


async def test_ttft():
    assert 0.1 <= await timed(ttft=0.1) < 1
    assert await timed(ttft=0) < 0.1


async def test_tpot():
    assert 0.09 <= await timed(tpot=0.03) < 1
    assert 0.06 <= await timed(tpot=0.03, tokens_per_event=2) < 0.5


async def test_tokens_per_event():
    async with sim(tokens_per_event=3) as engine:
        events = [e async for e in engine.generate(ask(max_tokens=7))]
    assert [len(e.choices[0].token_ids) for e in events] == [3, 3, 1]


async def test_startup_seconds():
    began = time.perf_counter()
    async with sim(startup_seconds=0.1):
        assert time.perf_counter() - began >= 0.1


async def test_context_length():
    async with sim(max_model_len=10) as engine:
        assert (await run(engine, ask(max_tokens=6))).usage.total_tokens == 10
        with pytest.raises(ContextOverflow) as caught:
            await run(engine, ask(max_tokens=7))
        assert caught.value.details == {"prompt_tokens": 4, "context_length": 10}
        open_ended = await run(engine, ask(sampling={"max_tokens": None}))
        assert open_ended.usage.total_tokens == 10


async def test_default_max_tokens():
    async with sim(default_max_tokens=7) as engine:
        assert (await run(engine, ask(sampling={"max_tokens": None}))).usage.completion_tokens == 7


async def test_output_echo():
    async with sim(output="echo") as engine:
        made = await run(engine, ask("a b c", max_tokens=2))
        assert (made.text, made.choices[0].finish_reason) == ("a b ", "length")
        made = await run(engine, ask("a b c", max_tokens=9))
        assert (made.text, made.choices[0].finish_reason, made.usage.completion_tokens) == ("a b c ", "stop", 3)


async def test_adapters():
    async with sim(adapters=("loud",)) as engine:
        text = (await run(engine, ask(adapter="loud"))).text
        assert text == text.upper()
        with pytest.raises(AdapterNotFound):
            await run(engine, ask(adapter="other"))
    async with t.open_pipeline(t.engine_spec("sim", config={"adapters": ["loud"]})) as pipeline:
        assert pipeline.info.adapters == ("loud",)


class FiveTokens:
    size = 5

    def __init__(self, path):
        assert path == "here"


async def test_tokenizer_makes_it_speak_ids(monkeypatch):
    monkeypatch.setattr("trunnion_sim.vocabulary.Vocabulary", FiveTokens)
    engine = SimEngine("m", SimConfig(tokenizer="here"))
    info = await engine.start()
    assert (info.emits_text, info.tokenizer, info.capabilities.prompts) == (
        False,
        t.TokenizerRef(path="here"),
        ("token_ids",),
    )
    assert info.capabilities.support("detokenize") is t.Support.YES
    made = await run(engine, ask(prompt=t.TokensPrompt(token_ids=(1,)), max_tokens=50))
    assert made.text == ""
    assert set(made.choices[0].token_ids) <= set(range(5))
    await engine.stop()


async def test_slots_bound_what_runs_and_report_it():
    async with sim(max_num_seqs=2, ttft=0.05) as engine:
        tasks = [asyncio.create_task(run(engine)) for _ in range(5)]
        await settle()
        load = engine.load()
        assert (load.running, load.waiting, load.capacity) == (2, 3, 2)
        assert abs(load.timestamp - time.monotonic()) < 1
        await asyncio.gather(*tasks)
        load = engine.load()
        assert (load.running, load.waiting) == (0, 0)


async def test_the_queue_goes_by_priority_then_order():
    order = []

    async def one(name, priority):
        await run(engine, ask(priority=priority))
        order.append(name)

    async with sim(max_num_seqs=1) as engine:
        holder = engine.generate(ask())
        await anext(holder)
        named = (("late", 5), ("normal", 0), ("normal 2", 0), ("urgent", -3))
        tasks = [asyncio.create_task(one(name, priority)) for name, priority in named]
        await settle()
        assert engine.load().waiting == 4
        await holder.aclose()
        await asyncio.gather(*tasks)
    assert order == ["urgent", "normal", "normal 2", "late"]


async def test_max_waiting_refuses():
    async with sim(max_num_seqs=1, max_waiting=1, ttft=0.05) as engine:
        tasks = [asyncio.create_task(run(engine)) for _ in range(2)]
        await settle()
        with pytest.raises(Overloaded) as caught:
            await run(engine)
        assert (caught.value.retry_after, caught.value.retryable) == (1.0, True)
        await asyncio.gather(*tasks)
        await run(engine)


# --- slots are never lost


async def test_no_slot_is_lost_however_requests_end():
    async with sim(max_num_seqs=2, ttft=0.002, tpot=0.001) as engine:

        async def one(i):
            try:
                async with asyncio.timeout(0.0007 * (i % 13)), aclosing(engine.generate(ask(str(i)))) as events:
                    async for _ in events:
                        if i % 3 == 0:
                            break
            except TimeoutError:
                pass

        await asyncio.gather(*(one(i) for i in range(200)))
        assert (engine.load().running, engine.load().waiting) == (0, 0)
        assert len((await run(engine)).text.split()) == 4


async def test_a_slot_handed_to_a_cancelled_waiter_passes_on():
    async with sim(max_num_seqs=1) as engine:
        holder = engine.generate(ask())
        await anext(holder)
        waiters = [asyncio.create_task(run(engine)) for _ in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(holder.aclose())  # hands the slot to the first waiter ...
        await asyncio.sleep(0)
        waiters[0].cancel()  # ... which is cancelled before it resumes
        await closing
        done = await asyncio.gather(*waiters, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert [made.usage.completion_tokens for made in done[1:]] == [4, 4]
        assert (engine.load().running, engine.load().waiting) == (0, 0)


# --- faults


async def test_refuse():
    async with sim(fault="refuse") as engine:
        with pytest.raises(Overloaded):
            await run(engine)


async def test_slow():
    assert await timed(ttft=0.02, fault="slow") >= 0.2


@pytest.mark.parametrize("delivery", ["delta", "final"])
@pytest.mark.parametrize("after", [0, 2, 99])
async def test_die(delivery, after):
    async with sim(fault="die", fault_after=after) as engine:
        seen = []

        async def read():
            async for e in engine.generate(ask(delivery=delivery)):
                seen.append(e)

        with pytest.raises(Transient) as caught:
            await read()
        assert type(caught.value) is Transient
        assert len(seen) == (min(after, 3) if delivery == "delta" else 0)
        assert all(e.usage is None for e in seen)
        assert engine.load().running == 0
        await engine.check_health()


async def test_hang_until_stopped():
    async with sim(fault="hang", max_num_seqs=1) as engine:
        tasks = [asyncio.create_task(run(engine)) for _ in range(2)]
        await settle()
        assert (engine.load().running, engine.load().waiting) == (1, 1)
        await engine.stop()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in done] == [Cancelled, Cancelled]


async def test_crash_takes_every_request_down():
    async with sim(fault="crash", fault_marker="boom", max_num_seqs=2, ttft=0.01, tpot=0.01) as engine:
        await engine.check_health()
        tasks = [asyncio.create_task(run(engine, ask(text))) for text in ("fine", "boom", "queued")]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in done] == [EngineDead] * 3
        with pytest.raises(EngineDead):
            await engine.check_health()
        with pytest.raises(EngineDead):
            await run(engine)
        assert (engine.load().running, engine.load().waiting) == (0, 0)


async def test_only_marked_prompts_are_struck():
    async with sim(fault="refuse", fault_marker="boom") as engine:
        await run(engine)
        with pytest.raises(Overloaded):
            await run(engine, ask("so boom it goes"))


# --- stopping


async def test_stop_ends_those_in_flight_and_those_that_wait():
    async with sim(max_num_seqs=1, tpot=5) as engine:
        holder = engine.generate(ask())  # holds its slot and is not read
        await anext(holder)
        waiting = asyncio.create_task(run(engine))
        await asyncio.sleep(0)
        await engine.stop()
        with pytest.raises(Cancelled):
            await asyncio.wait_for(waiting, 1)
        with pytest.raises(Cancelled):
            await anext(holder)
        with pytest.raises(EngineDead, match="build a new one"):
            await run(engine)
        await engine.stop()


async def test_drain_lets_those_in_flight_finish_and_takes_no_more():
    async with sim(ttft=0.1) as engine:
        task = asyncio.create_task(run(engine))
        await settle()
        stopping = asyncio.create_task(engine.stop(drain=5))
        await asyncio.sleep(0)
        with pytest.raises(EngineDead):
            await run(engine)
        await stopping
        assert (await task).usage.completion_tokens == 4


async def test_drain_has_an_end():
    async with sim(ttft=60) as engine:
        task = asyncio.create_task(run(engine))
        await settle()
        began = time.perf_counter()
        await engine.stop(drain=0.05)
        assert time.perf_counter() - began < 1
        with pytest.raises(Cancelled):
            await task


async def test_stopping_after_the_terminal_event_harms_nothing():
    async with sim() as engine:
        made = t.Completion()
        async for e in engine.generate(ask()):
            made.add(e)
            if e.usage is not None:
                await engine.stop()
        assert made.usage is not None


async def test_it_is_used_once():
    engine = SimEngine(None, SimConfig())
    assert await engine.start() == await engine.start()
    await engine.stop()
    with pytest.raises(ConfigError, match="build a new one"):
        await engine.start()
    never = SimEngine(None, SimConfig())
    await never.stop()
    with pytest.raises(ConfigError):
        await never.start()


def test_every_setting_is_tested():
    folder = Path(__file__).parent
    tested = "".join(file.read_text(encoding="utf-8") for file in folder.glob("test_*.py"))
    for name in [*SimConfig.model_fields, *FaultRule.model_fields, *StepTime.model_fields]:
        assert re.search(rf"\b{name}=|\b{name}\": ", tested), f"give {name} a test that it has an effect"


async def test_through_a_pipeline():
    async with t.open_pipeline(t.engine_spec("sim", config={"max_num_seqs": 1})) as pipeline:
        made = await pipeline.complete(ask(prompt=t.MessagesPrompt(messages=({"role": "user", "content": "x"},))))
        assert len(made.text.split()) == 4
        assert pipeline.load().capacity == 1
        events = pipeline.generate(ask())
        await anext(events)
        assert pipeline.load().running == 1
        await events.aclose()
        assert pipeline.load().running == 0


@pytest.mark.parametrize(
    ("sampling", "tokens", "reason"),
    [
        ({"max_tokens": 9}, 5, "stop"),
        ({"max_tokens": 3}, 3, "length"),
        ({"max_tokens": 9, "min_tokens": 7}, 7, "stop"),
        ({"max_tokens": 9, "ignore_eos": True}, 9, "length"),
    ],
)
async def test_a_completion_ends_by_itself_unless_told_otherwise(sampling, tokens, reason):
    async with sim(eos_after=5) as engine:
        answer = await run(engine, ask(sampling=sampling))
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (tokens, reason)


async def test_temperature_zero_and_a_narrow_nucleus_are_greedy():
    greedy = await text_of(ask(sampling={"temperature": 0, "seed": 1}))
    assert await text_of(ask(sampling={"temperature": 0, "seed": 2})) == greedy
    assert await text_of(ask(sampling={"temperature": 1, "seed": 2})) != greedy
    assert await text_of(ask(sampling={"temperature": 1, "seed": 2, "top_p": 0.01})) == greedy


async def test_time_per_token_counts_however_many_ride_on_an_event():
    async def seconds(**fields):
        async with sim(tpot=0.02) as engine:
            began = time.monotonic()
            await run(engine, ask(max_tokens=6, **fields))
            return time.monotonic() - began

    assert await seconds(delivery="final") >= 0.1
    assert await seconds(delivery="delta") >= 0.1
