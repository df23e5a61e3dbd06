"""The simulated engine hears words in bytes, in the time that its settings say."""

import asyncio

import pytest
from sim_lab import sim

from trunnion.errors import ContextOverflow, EngineDead, Overloaded, Transient

AUDIO = bytes(range(256)) * 400


async def heard(audio=AUDIO, language=None, **config):
    async with sim(**config) as engine:
        return await engine.transcribe(audio, mime_type="audio/wav", language=language)


async def test_bytes_language_and_seed_decide():
    plain = await heard()
    assert plain == await heard()
    others = [await heard(AUDIO + b"x"), await heard(language="en"), await heard(seed=7)]
    assert len({plain.text, *(one.text for one in others)}) == 4


async def test_what_it_costs():
    found = await heard()
    assert found.usage.prompt_tokens == 80
    assert found.usage.completion_tokens == len(found.text.split()) == 8
    assert len((await heard(default_max_tokens=3)).text.split()) == 3
    assert (await heard(b"")).usage.prompt_tokens == 1


async def test_it_takes_a_place_and_its_words_take_time():
    async with sim(max_num_seqs=1, ttft=0.01, tpot=0.01) as engine:
        clock = asyncio.get_running_loop().time
        began = clock()
        tasks = [asyncio.ensure_future(engine.transcribe(AUDIO, mime_type="audio/wav")) for _ in range(2)]
        while (engine.load().running, engine.load().waiting) != (1, 1):
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert clock() - began >= 2 * (0.01 + 7 * 0.01)  # never sooner, however fast the machine
        assert engine.load().running == 0


async def test_what_does_not_fit():
    with pytest.raises(ContextOverflow):
        await heard(max_model_len=85)


@pytest.mark.parametrize(
    ("fault", "error"), [("refuse", Overloaded), ("die", Transient), ("crash", EngineDead)]
)  # fmt: skip
async def test_faults_by_a_marker_in_the_bytes(fault, error):
    async with sim(fault=fault, fault_marker="bad") as engine:
        assert (await engine.transcribe(AUDIO, mime_type="audio/wav")).text
        with pytest.raises(error):
            await engine.transcribe(AUDIO + b"bad", mime_type="audio/wav")


async def test_who_hangs_holds_its_place_until_it_is_given_up():
    async with sim(fault="hang", max_num_seqs=1) as engine:
        task = asyncio.ensure_future(engine.transcribe(AUDIO, mime_type="audio/wav"))
        while not engine.load().running:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert engine.load().running == 0


async def test_it_may_do_without():
    async with sim(unsupported=["transcribes/1"]) as engine:
        assert "transcribes/1" not in engine.info.capabilities.protocols
