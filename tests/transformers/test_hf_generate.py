"""What a request may ask of transformers, on a real engine."""

import asyncio
import math
from contextlib import aclosing

import pytest
from hf_lab import PROMPT, ask, complete, events, first, idle

from trunnion.errors import AdapterNotFound, ContextOverflow, InvalidArgument, UnsupportedFeature
from trunnion.formats import Regex
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt, TokensPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]


async def test_info_describes_the_model(engine, model, adapters):
    info = engine.info
    assert (info.engine, info.model, info.context_length) == ("transformers", model, 512)
    assert info.library.startswith("transformers 5.")
    assert (info.concurrency, info.adapters, info.emits_text) == (16, tuple(adapters), False)
    assert {"reports_load/1", "probes_health/1", "hot_adapters/1"} == info.capabilities.protocols
    assert info.details["dtype"] == "float32"
    assert [stage.name for stage in info.startup] == [
        "import libraries", "load model", "allocate cache", "load adapters"
    ]  # fmt: skip
    assert await engine.start() is info


async def test_the_answer_is_that_of_the_library_alone(engine, model, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = tokenizer(PROMPT, return_tensors="pt")
    wanted = bare.generate(**ids, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, ids.input_ids.shape[1] :]
    of_text = await first(engine)
    of_ids = await first(engine, TokensPrompt(token_ids=tuple(ids.input_ids[0].tolist())))
    assert list(of_text.token_ids) == list(of_ids.token_ids) == wanted.tolist()
    assert (of_text.finish_reason, of_text.text) == ("length", "")


async def test_deltas_add_up_to_the_final_answer(engine):
    stream = await events(engine)
    final = await events(engine, fields={"delivery": "final"})
    assert len(final) == 1
    assert len(stream) > 4
    assert [t for event in stream for t in event.choices[0].token_ids] == list(final[0].choices[0].token_ids)
    assert [event.usage for event in stream[:-1]] == [None] * (len(stream) - 1)
    assert [event.choices[0].finish_reason for event in stream].count("length") == 1
    assert stream[-1].usage.completion_tokens == final[0].usage.completion_tokens == 12


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_n_choices_share_one_usage(engine, delivery):
    got = await events(engine, n=3, temperature=1.0, seed=1, fields={"delivery": delivery})
    assert [event.usage is not None for event in got] == [False] * (len(got) - 1) + [True]
    assert got[-1].usage.completion_tokens == 36
    pieces = [choice for event in got for choice in event.choices]
    ids = {i: [t for c in pieces if c.index == i for t in c.token_ids] for i in range(3)}
    assert [len(ids[i]) for i in range(3)] == [12, 12, 12]
    assert sum(choice.finish_reason == "length" for choice in pieces) == 3
    assert len({tuple(tokens) for tokens in ids.values()}) > 1


async def test_equal_prefixes_are_computed_once_per_salt(engine):
    prompt = TokensPrompt(token_ids=[7 + i % 90 for i in range(37)])

    async def cached(salt=None):
        return (await complete(engine, prompt, max_tokens=1, fields={"cache_salt": salt})).usage.cached_tokens

    assert [await cached(), await cached()] == [0, 32]
    assert [await cached("one"), await cached("one"), await cached("two")] == [0, 32, 0]


async def test_steps_run_in_inference_mode_and_changes_of_the_model_do_not(engine, monkeypatch):
    import torch

    manager, modes = engine._runner._manager, []
    step = manager._generation_step
    monkeypatch.setattr(
        manager, "_generation_step", lambda: (modes.append(torch.is_inference_mode_enabled()), step())[1]
    )
    await first(engine)
    assert modes == [True] * 12
    assert not await engine._runner.call(torch.is_inference_mode_enabled)


async def test_a_stream_takes_each_token_once(engine):
    """A step hands on what is new alone; what the one who asks has no time for is kept."""
    alone = await first(engine, max_tokens=30)
    async with aclosing(engine.generate(ask(max_tokens=30))) as stream:
        got = [await anext(stream)]
        await asyncio.sleep(0.2)  # most steps pass meanwhile
        got += [event async for event in stream]
    assert [token for event in got for token in event.choices[0].token_ids] == alone.token_ids
    assert got[-1].usage.completion_tokens == 30


async def test_eos_ends_unless_ignored(engine):
    prompt = TextPrompt(text="<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    ended = await first(engine, prompt, max_tokens=60, ignore_eos=False)
    assert (ended.finish_reason, ended.stop_reason) == ("stop", None)
    assert ended.token_ids[-1] in engine._eos
    assert len((await first(engine, prompt, max_tokens=60)).token_ids) == 60
    late = await first(engine, prompt, max_tokens=60, ignore_eos=False, min_tokens=len(ended.token_ids) + 3)
    assert len(late.token_ids) >= len(ended.token_ids) + 3


async def test_stop_token_ids(engine):
    plain = await first(engine, max_tokens=24)
    token = plain.token_ids[4]
    ended = await first(engine, max_tokens=24, stop_token_ids=(token,))
    assert ended.token_ids == plain.token_ids[: plain.token_ids.index(token) + 1]
    assert (ended.finish_reason, ended.stop_reason) == ("stop", token)
    assert len((await first(engine, max_tokens=24, stop_token_ids=(token,), min_tokens=20)).token_ids) >= 20


async def test_max_tokens_unset_goes_to_the_end_of_the_context(engine):
    answer = await complete(engine, TokensPrompt(token_ids=[9] * 480), max_tokens=None)
    assert answer.usage.completion_tokens == 32


async def test_a_seed_decides_the_draws_in_any_company(engine):
    values = {"temperature": 2.0, "max_tokens": 20}
    one = await first(engine, seed=5, **values)
    two, other, _ = await asyncio.gather(
        first(engine, seed=5, **values), first(engine, seed=6, **values), first(engine, **values)
    )
    assert one.token_ids == two.token_ids
    assert one.token_ids != other.token_ids


@pytest.mark.parametrize("narrow", [{"min_p": 1.0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}])
async def test_narrow_sampling_is_greedy(engine, narrow):
    greedy = await first(engine)
    assert (await first(engine, **{"temperature": 1.0, **narrow})).token_ids == greedy.token_ids


async def test_greedy_and_drawn_requests_share_a_batch(engine):
    alone = await first(engine)
    together = await asyncio.gather(*(first(engine, temperature=t) for t in (0.0, 2.0, 0.0, 2.0, 2.0)))
    assert together[0].token_ids == together[2].token_ids == alone.token_ids
    assert len({tuple(choice.token_ids) for choice in together}) == 4


async def test_the_model_s_own_temperature_holds_where_none_is_asked_for(engine):
    plain = await first(engine)  # the demo model says do_sample: false
    assert (await first(engine, temperature=None)).token_ids == plain.token_ids
    drawn = [await first(engine, temperature=None, top_p=0.999, seed=seed) for seed in (1, 2, 3)]
    assert len({tuple(choice.token_ids) for choice in drawn}) > 1


async def test_logit_bias_and_penalties(engine):
    values = {"max_tokens": 40, "logit_bias": {40: 100.0, 41: 80.0}}
    assert list((await first(engine, **values)).token_ids) == [40] * 40
    assert set((await first(engine, **values, frequency_penalty=2.0)).token_ids) == {40, 41}
    once = {**values, "logit_bias": {40: 100.0, 41: 99.0}}
    assert list((await first(engine, **once, presence_penalty=2.0)).token_ids)[:3] == [40, 41, 40]
    plain = await first(engine, max_tokens=40)
    varied = await first(engine, max_tokens=40, repetition_penalty=5.0)
    assert len(set(varied.token_ids)) > len(set(plain.token_ids))


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_logprobs(engine, tokenizer, delivery):
    choice = await first(engine, max_tokens=4, logprobs=3, fields={"delivery": delivery})
    assert [entry.token_id for entry in choice.logprobs] == list(choice.token_ids)
    for entry in choice.logprobs:
        assert len(entry.top) == 3
        assert entry.top[0].token_id == entry.token_id
        assert entry.top[0].logprob == pytest.approx(entry.logprob)
        assert entry.token == tokenizer.decode([entry.token_id])
        assert sum(math.exp(other.logprob) for other in entry.top) <= 1.0001
    alone = await first(engine, max_tokens=2, logprobs=0)
    assert [entry.top for entry in alone.logprobs] == [(), ()]
    biased = await first(engine, max_tokens=1, logprobs=1, logit_bias={40: 100.0})
    assert biased.logprobs[0].token_id == 40  # the logprobs are the model's own, whatever was changed
    assert biased.logprobs[0].logprob < biased.logprobs[0].top[0].logprob
    assert (await first(engine)).logprobs is None


async def test_a_long_prompt_is_split_over_steps(engine, tokenizer):
    text = " ".join(f"number {i}" for i in range(110))
    ids = tokenizer.encode(text)[:500]
    whole = await first(engine, TokensPrompt(token_ids=ids), max_tokens=5)
    many = await asyncio.gather(*(first(engine, TokensPrompt(token_ids=ids), max_tokens=5) for _ in range(6)))
    assert {tuple(choice.token_ids) for choice in many} == {tuple(whole.token_ids)}


@pytest.mark.parametrize(
    ("values", "error", "param"),
    [
        ({"max_tokens": 600}, ContextOverflow, "max_tokens"),
        ({"prompt_logprobs": 1}, UnsupportedFeature, "prompt_logprobs"),
        ({"stop": ("x",)}, UnsupportedFeature, "stop"),
        ({"fields": {"output_format": Regex(pattern="a")}}, UnsupportedFeature, "output_format.regex"),
        ({"fields": {"adapter": "nobody"}}, AdapterNotFound, "adapter"),
        ({"fields": {"extra": {"transformers": {"x": 1}}}}, InvalidArgument, "extra.transformers.x"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(engine, values, error, param):
    with pytest.raises(error) as caught:
        await first(engine, **values)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        (TokensPrompt(token_ids=[5] * 513), ContextOverflow),
        (TokensPrompt(token_ids=[]), InvalidArgument),
        (TokensPrompt(token_ids=[10**6]), InvalidArgument),
        (TokensPrompt(token_ids=[-1]), InvalidArgument),
        (MessagesPrompt(messages=[{"role": "user", "content": "hi"}]), UnsupportedFeature),
    ],
)
async def test_bad_prompts_never_reach_the_library(engine, prompt, error):
    with pytest.raises(error):
        await anext(engine.generate(GenerateRequest(prompt=prompt)))
    assert (await idle(engine)).waiting == 0


async def test_nothing_is_taken_before_the_first_step(engine):
    stream = engine.generate(ask(max_tokens=400))
    refused = engine.generate(ask(max_tokens=10**6))
    assert engine.load().running + engine.load().waiting == 0
    await stream.aclose()
    await refused.aclose()


async def test_closing_frees_the_slot(engine):
    stream = engine.generate(ask(max_tokens=400))
    await anext(stream)
    assert engine.load().running == 1
    assert engine.load().kv_cache_usage > 0
    await stream.aclose()
    assert (await idle(engine)).running == 0


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_cancelling_frees_the_slot(engine, delivery):
    tasks = [
        asyncio.create_task(first(engine, max_tokens=400, n=2, temperature=1.0, fields={"delivery": delivery}))
        for _ in range(4)
    ]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*tasks, return_exceptions=True))
    assert (await idle(engine)).running == 0
    assert len((await first(engine)).token_ids) == 12


async def test_more_requests_than_fit_a_step_all_end(engine):
    report = asyncio.create_task(asyncio.sleep(0.05))
    answers = asyncio.gather(*(first(engine, f"{i} is", max_tokens=6) for i in range(80)))
    await report
    load = engine.load()
    assert load.running + load.waiting > load.capacity == 16
    assert load.running <= 16
    assert [len(choice.token_ids) for choice in await answers] == [6] * 80


async def test_health(engine):
    await engine.check_health()
