"""Fifty adapters through four slots: every answer is the asked adapter's own."""

import asyncio
import random
import shutil

import pytest

from trunnion.adapter_folders import AdapterFolders
from trunnion.adapter_shelf import AdapterShelf
from trunnion.completion import collect
from trunnion.engine import AdapterRef
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

PROMPT = TextPrompt(text="The morning light came over the hills and")


async def answer(engine, adapter):
    sampling = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
    request = GenerateRequest(prompt=PROMPT, sampling=sampling, adapter=adapter)
    return (await collect(engine.generate(request))).choices[0].token_ids


async def test_fifty_adapters_through_four_slots(engine, adapters, tmp_path):
    kinds = list(adapters)
    expected = {name: await answer(engine, name) for name in (None, *kinds)}
    assert len(set(map(tuple, expected.values()))) == len(expected)  # else a mix-up would not be seen
    for number in range(50):
        kind = kinds[number % len(kinds)]
        await asyncio.to_thread(shutil.copytree, adapters[kind], tmp_path / f"{kind}-{number}")
    shelf = AdapterShelf(engine, adapters, limit=4)
    found = AdapterFolders([str(tmp_path)]).scan()
    assert len(found) == 50
    for name, path in found.items():
        shelf.know(name, path)
    pick = random.Random(7)
    names = [None, *found]

    async def client():
        for _ in range(12):
            name = pick.choice(names)
            if name is None:
                assert await answer(engine, None) == expected[None]
                continue
            async with shelf.lent(name):
                assert await answer(engine, name) == expected[name.rpartition("-")[0]], name

    try:
        await asyncio.gather(*(client() for _ in range(16)))
        assert shelf.loads > 50
        assert len(await engine._llm.list_loras()) <= 4
    finally:
        await shelf.close()
        for ref in await engine.list_adapters():
            await engine.unload_adapter(ref.name)
        for name, path in adapters.items():
            await engine.load_adapter(AdapterRef(name=name, path=path))
    assert {name: await answer(engine, name) for name in expected} == expected
