"""LoRA in turns, on a real engine."""

import asyncio
import json
import shutil

import pytest
from hf_lab import ask, complete, first, idle

from trunnion.engine import AdapterRef
from trunnion.errors import AdapterNotFound, InvalidArgument
from trunnion.requests import TokensPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

NAMES = (None, "capitals", "pirate")
QUESTION = "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n"


async def answer(engine, adapter, *, max_tokens=20):
    return tuple((await first(engine, QUESTION, max_tokens=max_tokens, fields={"adapter": adapter})).token_ids)


async def test_each_answer_is_its_adapter_s_whatever_runs_beside(engine):
    alone = {name: await answer(engine, name) for name in NAMES}
    assert len(set(alone.values())) == 3
    asked = [NAMES[i % 3] for i in range(24)]
    together = await asyncio.gather(*(answer(engine, name) for name in asked))
    assert together == [alone[name] for name in asked]


async def test_a_step_never_mixes_adapters_and_turns_are_bounded(engine, monkeypatch):
    manager, steps = engine._runner._manager, []
    generation_step = manager._generation_step

    def recorded():
        batch = manager.batch_processor.inputs_and_outputs.requests_in_batch
        plans = {entry.state.logit_processor_kwargs["plan"].adapter for entry in batch}
        steps.append((plans, manager.scheduler.turn))
        generation_step()

    monkeypatch.setattr(manager, "_generation_step", recorded)
    long = asyncio.create_task(answer(engine, "pirate", max_tokens=150))
    while len(steps) < 3:
        await asyncio.sleep(0.005)
    mine = len(steps)
    await asyncio.gather(answer(engine, None, max_tokens=30), answer(engine, "capitals", max_tokens=30))
    assert not long.done()  # who came later was not kept waiting until the long one ended
    await long
    assert all(plans == {turn} for plans, turn in steps)
    turns = [turn for _, turn in steps[mine:]]
    runs = [len(list(run)) for run in _runs(turns[: turns.index(turns[-1]) + 60])]
    assert max(runs[:-1]) <= 8 + 3  # the first may have begun before anybody waited
    assert len(set(turns)) == 3


def _runs(turns):
    import itertools

    return [list(group) for _, group in itertools.groupby(turns)]


async def test_a_prefix_is_shared_by_requests_of_one_adapter_alone(engine):
    prompt = TokensPrompt(token_ids=[11 + i % 70 for i in range(50)])
    for name in NAMES:
        for cached in (0, 48):
            usage = (await complete(engine, prompt, max_tokens=1, fields={"adapter": name})).usage
            assert usage.cached_tokens == cached


async def test_adapters_come_and_go_while_others_generate(engine, adapters, tmp_path):
    wanted = await answer(engine, "pirate")
    base = await answer(engine, None, max_tokens=200)
    busy = asyncio.create_task(answer(engine, None, max_tokens=200))
    await asyncio.sleep(0)
    copy = AdapterRef(name="copy.of it", path=str(shutil.copytree(adapters["pirate"], tmp_path / "copy")))
    await engine.load_adapter(copy)
    await engine.load_adapter(copy)
    assert [ref.name for ref in await engine.list_adapters()] == ["capitals", "pirate", "copy.of it"]
    assert engine.load().adapters == ("capitals", "pirate", "copy.of it")
    assert await answer(engine, copy.name) == wanted
    running = asyncio.create_task(answer(engine, copy.name, max_tokens=60))
    await asyncio.sleep(0.05)
    await engine.unload_adapter(copy.name)
    assert (await running)[:20] == wanted  # a request in flight is served to its end
    assert await busy == base
    with pytest.raises(AdapterNotFound, match="loaded: capitals, pirate"):
        await answer(engine, copy.name)
    with pytest.raises(AdapterNotFound):
        await engine.unload_adapter(copy.name)
    assert len(engine._runner.switch._model.peft_config) == 2
    await idle(engine)


async def test_another_path_replaces_an_adapter(engine, adapters):
    wanted = {name: await answer(engine, name) for name in ("capitals", "pirate")}
    for name in ("capitals", "pirate"):
        await engine.load_adapter(AdapterRef(name="either", path=adapters[name]))
        assert await answer(engine, "either") == wanted[name]
    await engine.unload_adapter("either")
    assert len(engine._runner.switch._model.peft_config) == 2


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("missing", AdapterNotFound),
        ("no config", AdapterNotFound),
        ("kind", InvalidArgument),
        ("rank", InvalidArgument),
    ],
)
async def test_an_adapter_that_does_not_fit_leaves_nothing_behind(engine, adapters, tmp_path, broken, error):
    folder = tmp_path / "adapter"
    if broken != "missing":
        shutil.copytree(adapters["pirate"], folder)
        file = folder / "adapter_config.json"
        held = json.loads(file.read_text())
        if broken == "no config":
            file.unlink()
        else:
            change = {"peft_type": "PROMPT_TUNING"} if broken == "kind" else {"r": 4}
            file.write_text(json.dumps({**held, **change}))
    with pytest.raises(error):
        await engine.load_adapter(AdapterRef(name="bad", path=str(folder)))
    assert len(engine._runner.switch._model.peft_config) == 2
    assert [ref.name for ref in await engine.list_adapters()] == ["capitals", "pirate"]
    assert (await complete(engine, ask().prompt)).usage.completion_tokens == 12
