"""What a request may ask of vLLM, on a real engine."""

import asyncio
import math
from contextlib import aclosing

import pytest

from trunnion.completion import collect
from trunnion.errors import AdapterNotFound, ContextOverflow, InvalidArgument, UnsupportedFeature
from trunnion.formats import Regex
from trunnion.requests import GenerateRequest, MessagesPrompt, SamplingParams, TextPrompt, TokensPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

PROMPT = "The morning light came over the hills and"


async def run(engine, sampling=None, /, *, prompt=PROMPT, collected=True, fields=None, **values):
    values = {"temperature": 0.0, "max_tokens": 12, **values}
    prompt = TextPrompt(text=prompt) if isinstance(prompt, str) else prompt
    request = GenerateRequest(prompt=prompt, sampling=sampling or SamplingParams(**values), **(fields or {}))
    async with aclosing(engine.generate(request)) as events:
        return await collect(events) if collected else [event async for event in events]


async def first(engine, **values):
    return (await run(engine, **values)).choices[0]


async def idle(engine):
    """Wait until vLLM itself holds no request."""
    async with asyncio.timeout(5):
        while engine._llm.output_processor.request_states or engine.load().running:
            await asyncio.sleep(0.01)
    return engine.load()


async def test_info_describes_the_model(engine, model, adapters):
    info = engine.info
    assert (info.engine, info.model, info.context_length) == ("vllm", model, 512)
    assert info.library.startswith("vllm 0.")
    assert info.concurrency >= 64
    assert info.adapters == tuple(adapters)
    assert info.capabilities.support("priority") == "no"
    assert info.capabilities.protocols == {
        "reports_load/1",
        "probes_health/1",
        "hot_adapters/1",
        "resets_cache/1",
        "emits_kv_events/1",
    }
    assert "CPU build" in info.capabilities.reasons["sleeps/1"]
    assert await engine.start() is info


async def test_text_and_token_ids_give_the_same_answer(engine, tokenizer):
    ids = tokenizer.encode(PROMPT)
    of_text = await first(engine, ignore_eos=True)
    of_ids = await first(engine, ignore_eos=True, prompt=TokensPrompt(token_ids=tuple(ids)))
    assert of_text.token_ids == of_ids.token_ids
    assert len(of_text.token_ids) == 12
    assert of_text.text == tokenizer.decode(of_text.token_ids, skip_special_tokens=True)
    assert of_text.finish_reason == "length"


async def test_deltas_add_up_to_the_final_answer(engine):
    stream = await run(engine, collected=False, ignore_eos=True)
    final = await run(engine, collected=False, ignore_eos=True, fields={"delivery": "final"})
    assert len(final) == 1
    assert len(stream) > 4
    assert "".join(event.choices[0].text for event in stream) == final[0].choices[0].text
    assert [t for event in stream for t in event.choices[0].token_ids] == list(final[0].choices[0].token_ids)
    assert [event.usage for event in stream[:-1]] == [None] * (len(stream) - 1)
    assert [event.choices[0].finish_reason for event in stream].count("length") == 1
    assert stream[-1].usage.completion_tokens == final[0].usage.completion_tokens == 12


async def test_without_detokenizing_there_are_ids_alone(engine):
    plain = await first(engine, ignore_eos=True)
    for delivery in ("delta", "final"):
        fields = {"detokenize": False, "delivery": delivery}
        answer = await first(engine, ignore_eos=True, fields=fields, stop=("never seen",))
        assert (answer.text, answer.token_ids) == ("", plain.token_ids)


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_n_choices_share_one_usage(engine, delivery):
    events = await run(
        engine, collected=False, n=3, temperature=1.0, seed=1, ignore_eos=True, fields={"delivery": delivery}
    )
    usages = [event.usage for event in events if event.usage]
    assert len(usages) == 1
    assert events[-1].usage is usages[0]
    assert usages[0].completion_tokens == 36
    pieces = [choice for event in events for choice in event.choices]
    ids = {i: [t for c in pieces if c.index == i for t in c.token_ids] for i in range(3)}
    assert [len(ids[i]) for i in range(3)] == [12, 12, 12]
    assert sum(choice.finish_reason == "length" for choice in pieces) == 3
    assert len({tuple(tokens) for tokens in ids.values()}) > 1


async def test_usage_counts_cached_tokens(engine):
    block = engine.info.kv_layout.block_size
    prompt = TokensPrompt(token_ids=[7 + i % 90 for i in range(2 * block + 5)])
    before = (await run(engine, prompt=prompt, max_tokens=1)).usage
    after = (await run(engine, prompt=prompt, max_tokens=1)).usage
    assert (before.prompt_tokens, before.cached_tokens) == (2 * block + 5, 0)
    assert after.cached_tokens == 2 * block
    salted = await run(engine, prompt=prompt, max_tokens=1, fields={"cache_salt": "tenant"})
    assert salted.usage.cached_tokens == 0


async def test_stop_strings_and_ids(engine):
    plain = await first(engine, max_tokens=24, ignore_eos=True)
    word = plain.text.strip()[3:6]
    cut = await first(engine, max_tokens=24, ignore_eos=True, stop=(word,))
    assert cut.text == plain.text[: plain.text.index(word)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", word)
    kept = await first(engine, max_tokens=24, ignore_eos=True, stop=(word,), include_stop_str_in_output=True)
    assert kept.text == cut.text + word
    token = plain.token_ids[4]
    ended = await first(engine, max_tokens=24, ignore_eos=True, stop_token_ids=(token,))
    assert ended.token_ids == plain.token_ids[: plain.token_ids.index(token) + 1]
    assert (ended.finish_reason, ended.stop_reason) == ("stop", token)
    late = await first(engine, max_tokens=24, ignore_eos=True, stop_token_ids=(token,), min_tokens=20)
    assert len(late.token_ids) >= 20


async def test_seed(engine):
    values = {"temperature": 2.0, "max_tokens": 20, "ignore_eos": True}
    one, two, other = [await first(engine, seed=seed, **values) for seed in (5, 5, 6)]
    assert one.token_ids == two.token_ids
    assert one.token_ids != other.token_ids


@pytest.mark.parametrize("narrow", [{"min_p": 1.0}, {"top_k": 1}, {"top_p": 1e-6}])
async def test_narrow_sampling_is_greedy(engine, narrow):
    greedy = await first(engine, ignore_eos=True)
    assert (await first(engine, temperature=1.0, ignore_eos=True, **narrow)).token_ids == greedy.token_ids


async def test_logit_bias_and_penalties(engine):
    bias = {40: 100.0, 41: 80.0}
    values = {"ignore_eos": True, "max_tokens": 40, "logit_bias": bias}
    assert (await first(engine, **values)).token_ids == [40] * 40
    assert set((await first(engine, **values, frequency_penalty=2.0)).token_ids) == {40, 41}
    plain = await first(engine, ignore_eos=True, max_tokens=40)
    varied = await first(engine, ignore_eos=True, max_tokens=40, repetition_penalty=5.0)
    assert len(set(varied.token_ids)) > len(set(plain.token_ids))


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_logprobs(engine, tokenizer, delivery):
    values = {"ignore_eos": True, "skip_special_tokens": False, "logprobs": 3, "prompt_logprobs": 1}
    answer = await run(engine, max_tokens=4, **values, fields={"delivery": delivery})
    choice = answer.choices[0]
    assert [entry.token_id for entry in choice.logprobs] == choice.token_ids
    for entry in choice.logprobs:
        assert len(entry.top) == 3
        assert entry.top[0].token_id == entry.token_id  # greedy
        assert [t.logprob for t in entry.top] == sorted((t.logprob for t in entry.top), reverse=True)
        assert 0 < math.exp(entry.logprob) <= 1.000001
    assert "".join(entry.token for entry in choice.logprobs) == choice.text
    assert len(answer.prompt_logprobs) == len(tokenizer.encode(PROMPT))
    assert answer.prompt_logprobs[0] is None
    assert len(answer.prompt_logprobs[1].top) == 1
    alone = await first(engine, ignore_eos=True, max_tokens=2, logprobs=0)
    assert [entry.top for entry in alone.logprobs] == [(), ()]


async def test_an_adapter_changes_the_answer(engine, adapters):
    base = await first(engine, max_tokens=24)
    tuned = {name: await first(engine, max_tokens=24, fields={"adapter": name}) for name in adapters}
    assert all(answer.token_ids != base.token_ids for answer in tuned.values())
    with pytest.raises(AdapterNotFound, match=next(iter(adapters))):
        await run(engine, fields={"adapter": "nobody"})


async def test_adapters_and_the_base_model_share_a_batch(engine, adapters):
    order = [None, *adapters, None, *reversed(adapters), None]
    alone = {name: await first(engine, max_tokens=24, fields={"adapter": name}) for name in {*order}}
    together = await asyncio.gather(*[first(engine, max_tokens=24, fields={"adapter": name}) for name in order])
    for name, answer in zip(order, together, strict=True):
        assert answer.token_ids == alone[name].token_ids, name


async def test_nothing_is_taken_before_the_first_step(engine):
    events = engine.generate(GenerateRequest(prompt=TextPrompt(text=PROMPT)))
    assert engine.load().running + engine.load().waiting == 0
    await events.aclose()


async def test_closing_a_stream_frees_its_slot(engine):
    request = GenerateRequest(prompt=TextPrompt(text=PROMPT), sampling=SamplingParams(ignore_eos=True))
    events = engine.generate(request)
    await anext(events)
    await anext(events)
    load = engine.load()
    assert (load.running, load.waiting, load.capacity) == (1, 0, engine.info.concurrency)
    assert load.kv_cache_usage > 0
    await events.aclose()
    assert (await idle(engine)).running == 0


@pytest.mark.parametrize("delivery", ["delta", "final"])
@pytest.mark.parametrize("n", [1, 2])
async def test_cancelling_the_consumer_frees_its_slots(engine, delivery, n):
    sampling = SamplingParams(ignore_eos=True, n=n)
    request = GenerateRequest(prompt=TextPrompt(text=PROMPT), sampling=sampling, delivery=delivery)
    task = asyncio.create_task(collect(engine.generate(request)))
    async with asyncio.timeout(5):
        while engine.load().running < n:
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await idle(engine)).running == 0


async def test_many_requests_at_once(engine):
    alone = [await first(engine, prompt=f"{i} {PROMPT}", ignore_eos=True) for i in range(6)]
    together = await asyncio.gather(*(first(engine, prompt=f"{i} {PROMPT}", ignore_eos=True) for i in range(6)))
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]


@pytest.mark.parametrize(
    ("values", "fields", "error", "param"),
    [
        ({"n": 2}, {}, InvalidArgument, "n"),
        ({"logprobs": 1000}, {}, InvalidArgument, "logprobs"),
        ({"prompt_logprobs": 1000}, {}, InvalidArgument, "prompt_logprobs"),
        ({"logit_bias": {10**7: 1.0}}, {}, InvalidArgument, "logit_bias"),
        ({"stop_token_ids": (10**7,)}, {}, InvalidArgument, "stop_token_ids"),
        ({"temperature": 3.0}, {}, InvalidArgument, "temperature"),
        ({}, {"output_format": Regex(pattern="(")}, InvalidArgument, "output_format"),
        ({}, {"prompt": TokensPrompt(token_ids=[])}, InvalidArgument, "prompt"),
        ({}, {"prompt": TokensPrompt(token_ids=[10**7])}, InvalidArgument, "prompt"),
        ({}, {"prompt": MessagesPrompt(messages=[])}, UnsupportedFeature, "messages"),
        ({}, {"extra": {"vllm": {"bad_word": ["x"]}}}, InvalidArgument, "extra.vllm.bad_word"),
    ],
)
async def test_refusals_name_the_field(engine, values, fields, error, param):
    prompt = fields.pop("prompt", PROMPT)
    with pytest.raises(error) as caught:
        await run(engine, prompt=prompt, fields=fields, **values)
    assert type(caught.value) is error
    assert caught.value.param == param
    assert engine.load().running + engine.load().waiting == 0


async def test_what_does_not_fit_is_refused_in_numbers(engine):
    with pytest.raises(ContextOverflow, match="600") as caught:
        await run(engine, prompt=TokensPrompt(token_ids=[9] * 600))
    assert caught.value.details == {"prompt_tokens": 600, "max_tokens": 12, "context_length": 512}
    with pytest.raises(ContextOverflow, match="at most 12") as caught:
        await run(engine, prompt=TokensPrompt(token_ids=[9] * 500), max_tokens=13)
    assert caught.value.param == "max_tokens"
    full = await run(engine, prompt=TokensPrompt(token_ids=[9] * 500), max_tokens=None, ignore_eos=True)
    assert full.usage.completion_tokens == 12


async def test_extra_reaches_vllm(engine, tokenizer):
    plain = await first(engine, ignore_eos=True)
    banned = plain.token_ids[0]
    allowed = [token for token in range(len(tokenizer)) if token != banned]
    extra = {"vllm": {"allowed_token_ids": allowed}}
    assert banned not in (await first(engine, ignore_eos=True, fields={"extra": extra})).token_ids


async def test_health(engine):
    await engine.check_health()
