"""Adapters come and go while the engine generates."""

import asyncio
from contextlib import aclosing

import pytest

from trunnion.completion import collect
from trunnion.engine import AdapterRef
from trunnion.errors import AdapterNotFound, Overloaded
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt, TokensPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

PROMPT = TextPrompt(text="The morning light came over the hills and")


def request(adapter=None, prompt=PROMPT, tokens=24):
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    return GenerateRequest(prompt=prompt, sampling=sampling, adapter=adapter)


async def answer(engine, adapter=None, **values):
    return (await collect(engine.generate(request(adapter, **values)))).choices[0].token_ids


async def held(engine):
    """Return how many adapters vLLM's own process holds."""
    return len(await engine._llm.list_loras())


async def test_adapters_come_and_go(engine, adapters):
    name, path = next(iter(adapters.items()))
    expected = await answer(engine, name)
    for again in ("again", "once more"):
        await engine.load_adapter(AdapterRef(name=again, path=path))
        await engine.load_adapter(AdapterRef(name=again, path=path))
        assert await answer(engine, again) == expected
    assert [ref.name for ref in await engine.list_adapters()] == [*adapters, "again", "once more"]
    with pytest.raises(Overloaded, match="max_loras"):  # the slot that is left must stay empty, on a CPU
        await engine.load_adapter(AdapterRef(name="one more", path=path))
    await asyncio.gather(engine.unload_adapter("again"), engine.unload_adapter("once more"))
    assert await held(engine) == len(adapters)
    with pytest.raises(AdapterNotFound):
        await engine.unload_adapter("again")
    with pytest.raises(AdapterNotFound):
        await answer(engine, "again")
    with pytest.raises(AdapterNotFound, match="/no/such/adapter"):
        await engine.load_adapter(AdapterRef(name="lost", path="/no/such/adapter"))
    await engine.check_health()


async def test_more_adapters_than_slots_pass_through_while_others_generate(engine, adapters):
    expected = {name: await answer(engine, name) for name in (None, *adapters)}
    going = True

    async def others():
        rounds = 0
        while going:
            for name, tokens in expected.items():
                assert await answer(engine, name) == tokens, name
            rounds += 1
        return rounds

    beside = asyncio.create_task(others())
    paths = list(adapters.items())
    for number in range(4):
        pair = [(f"hot {number} {name}", name, path) for name, path in paths]
        await asyncio.gather(*(engine.load_adapter(AdapterRef(name=hot, path=path)) for hot, _, path in pair))
        answers = await asyncio.gather(*(answer(engine, hot) for hot, _, _ in pair))
        assert answers == [expected[name] for _, name, _ in pair]
        await asyncio.gather(*(engine.unload_adapter(hot) for hot, _, _ in pair))
        assert await held(engine) == len(adapters)
    going = False
    assert await beside > 0


async def test_a_request_in_flight_keeps_its_adapter(engine, adapters):
    name, path = next(iter(adapters.items()))
    expected = await answer(engine, name, tokens=100)
    await engine.load_adapter(AdapterRef(name="leaving", path=path))
    async with aclosing(engine.generate(request("leaving", tokens=100))) as events:
        tokens = list((await anext(events)).choices[0].token_ids)
        unloading = asyncio.create_task(engine.unload_adapter("leaving"))
        await asyncio.sleep(0)
        with pytest.raises(AdapterNotFound, match="leaving"):
            await answer(engine, "leaving")
        assert not unloading.done()
        async for event in events:
            tokens += [token for choice in event.choices for token in choice.token_ids]
    assert tokens == expected
    await unloading
    assert await held(engine) == len(adapters)


async def test_a_request_given_up_lets_its_adapter_go(engine, adapters):
    await engine.load_adapter(AdapterRef(name="leaving", path=next(iter(adapters.values()))))
    async with aclosing(engine.generate(request("leaving", tokens=400))) as events:
        await anext(events)
        unloading = asyncio.create_task(engine.unload_adapter("leaving"))
    await unloading
    await answer(engine)  # a further step, in which vLLM would load what it still needs
    assert await held(engine) == len(adapters)


async def test_an_adapter_is_not_given_the_cache_of_another_that_bore_its_name(engine, adapters):
    block = engine.info.kv_layout.block_size
    prompt = TokensPrompt(token_ids=[11 + i % 83 for i in range(2 * block + 3)])
    (_, old), (name, new) = adapters.items()
    expected = await answer(engine, name, prompt=prompt)
    await engine.load_adapter(AdapterRef(name="x", path=old))
    assert await answer(engine, "x", prompt=prompt) != expected
    await engine.load_adapter(AdapterRef(name="x", path=new))
    assert await answer(engine, "x", prompt=prompt) == expected
    await engine.unload_adapter("x")
