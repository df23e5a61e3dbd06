"""The prefix cache: forgotten when asked, and told about as it changes."""

import asyncio
from contextlib import aclosing

import pytest

from trunnion.completion import collect
from trunnion.requests import GenerateRequest, SamplingParams, TokensPrompt
from trunnion_vllm.config import VLLMConfig

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]


def request(tokens, **values):
    sampling = SamplingParams(**{"temperature": 0.0, "max_tokens": 1, "ignore_eos": True, **values})
    return GenerateRequest(prompt=TokensPrompt(token_ids=tokens), sampling=sampling)


def prompt(engine, start, blocks=2):
    return [start + i % 71 for i in range(blocks * engine.info.kv_layout.block_size + 5)]


async def cached(engine, tokens):
    return (await collect(engine.generate(request(tokens)))).usage.cached_tokens


async def seen(events, wanted):
    """Return the events up to the first that is wanted, that one included."""
    found = []
    async with asyncio.timeout(30):
        async for event in events:
            found.append(event)
            if wanted(event):
                return found
    raise AssertionError(f"the events ended without it: {found}")


async def test_a_reset_forgets_every_prefix(engine):
    tokens = prompt(engine, 100)
    block = engine.info.kv_layout.block_size
    assert [await cached(engine, tokens) for _ in range(2)] == [0, 2 * block]
    assert await engine.reset_prefix_cache() is True
    assert [await cached(engine, tokens) for _ in range(2)] == [0, 2 * block]


async def test_a_prefix_in_use_is_not_forgotten(engine):
    tokens = prompt(engine, 200)
    async with aclosing(engine.generate(request(tokens, max_tokens=200))) as events:
        await anext(events)
        assert await engine.reset_prefix_cache() is False
    assert await cached(engine, tokens) > 0


async def test_blocks_are_told_as_they_are_stored(engine):
    tokens, block = prompt(engine, 300), engine.info.kv_layout.block_size
    async with aclosing(engine.kv_events()) as events:
        await cached(engine, tokens)
        found = await seen(events, lambda e: e["type"] == "stored" and e["token_ids"][:3] == tuple(tokens[:3]))
        stored = found[-1]
        assert (stored["block_size"], stored["rank"], stored["adapter"]) == (block, 0, None)
        assert stored["token_ids"] == tuple(tokens[: len(stored["block_hashes"]) * block])
        await engine.reset_prefix_cache()
        await cached(engine, tokens)  # vLLM tells of it in the next step
        found += await seen(events, lambda e: e["type"] == "cleared")
    numbers = [event["seq"] for event in found]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(numbers[-1] + 1))  # from the engine's start, without a gap
    assert {event["type"] for event in found} <= {"stored", "removed", "cleared"}


async def test_blocks_of_an_adapter_bear_its_name(engine, adapters):
    name = next(iter(adapters))
    tokens = prompt(engine, 400)
    async with aclosing(engine.kv_events()) as events:
        await collect(engine.generate(request(tokens).with_(adapter=name)))
        found = await seen(events, lambda e: e["type"] == "stored" and e["token_ids"][:3] == tuple(tokens[:3]))
    assert found[-1]["adapter"] == name


async def test_several_follow_and_all_see_the_same(engine):
    tokens = prompt(engine, 500)

    async def follow():
        async with aclosing(engine.kv_events()) as events:
            return await seen(events, lambda e: e["type"] == "stored" and e["token_ids"][:3] == tuple(tokens[:3]))

    followers = [asyncio.create_task(follow()) for _ in range(3)]
    await cached(engine, tokens)
    one, two, three = await asyncio.gather(*followers)
    assert one == two == three


async def test_the_layout_tells_how_blocks_are_hashed(engine):
    """Whoever knows the layout computes the hash of a prompt's first block, as a router does."""
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core import kv_cache_utils

    layout, tokens = engine.info.kv_layout, prompt(engine, 600)
    if layout.seed is None:
        pytest.skip("this version draws its seed at random")
    make = get_hash_fn_by_name(layout.hash)
    first = make((make(layout.seed), tuple(tokens[: layout.block_size]), None))
    async with aclosing(engine.kv_events()) as events:
        await cached(engine, tokens)
        found = await seen(events, lambda e: e["type"] == "stored" and e["token_ids"][:3] == tuple(tokens[:3]))
    assert found[-1]["block_hashes"][0] == kv_cache_utils.maybe_convert_block_hash(first)


async def test_without_the_switch_nothing_is_published(vllm_environment, model):
    from trunnion_vllm.kv_events import can_follow
    from trunnion_vllm.launch import configure

    assert not can_follow(configure(model, VLLMConfig())[1])
    assert can_follow(configure(model, VLLMConfig(kv_events=True))[1])
    assert not can_follow(configure(model, VLLMConfig(kv_events=True, enable_prefix_caching=False))[1])
    own = {"endpoint": "tcp://*:5557", "buffer_steps": 7}
    config = configure(model, VLLMConfig(kv_events=True, engine_kwargs={"kv_events_config": own}))[1].kv_events_config
    assert (config.endpoint, config.buffer_steps, config.publisher) == ("tcp://*:5557", 7, "zmq")
