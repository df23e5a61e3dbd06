"""Every documented setting has its effect; what the tests of embedding, stopping and adapters show is not here."""

import asyncio
import itertools
import json
import shutil

import pytest
from hf_lab import PROMPT, SETTINGS, ask, config, events, first

from trunnion.errors import ConfigError
from trunnion.requests import TokensPrompt
from trunnion_transformers.config import TransformersConfig
from trunnion_transformers.engine import TransformersEngine

pytestmark = pytest.mark.engine

ELSEWHERE = {"pooling", "normalize", "gc_freeze", "adapters", "runner", "device"}
HERE = {
    "dtype", "attention", "threads", "max_model_len", "page_size", "num_blocks", "max_batch_tokens",
    "max_requests_per_batch", "adapter_turn_steps", "seed", "tokenizer", "revision", "trust_remote_code",
    "engine_kwargs",
}  # fmt: skip


def test_no_setting_is_left_out():
    assert set(TransformersConfig.model_fields) == HERE | ELSEWHERE


class Opened:
    """Open an engine of its own for a test."""

    def __init__(self, model, **values):
        self.engine = TransformersEngine(str(model), config(**values))

    async def __aenter__(self):
        self.engine.info = await self.engine.start()
        return self.engine

    async def __aexit__(self, *_):
        await self.engine.stop()


async def test_the_sizes_are_the_library_s(model):
    sizes = {"page_size": 8, "num_blocks": 33, "max_batch_tokens": 24, "max_requests_per_batch": 3}
    async with Opened(model, **sizes, max_model_len=None) as engine:
        cache = engine._runner._manager.batch_processor.cache
        assert (cache.num_blocks, cache.max_batch_tokens) == (33, 24)
        assert (engine.info.context_length, engine.info.concurrency) == (33 * 8, 3)
        assert {name: engine.info.details[name] for name in sizes} == sizes
        batches = []
        schedule = engine._runner._manager.scheduler.schedule_batch

        def watched(*args):
            made = schedule(*args)
            batches.append([entry.query_length for entry in made[0] or ()])
            return made

        engine._runner._manager.scheduler.schedule_batch = watched
        prompt = TokensPrompt(token_ids=list(range(5, 105)))
        await asyncio.gather(
            first(engine, prompt, max_tokens=3), *(first(engine, "Hi", max_tokens=20) for _ in range(5))
        )
        assert max(map(sum, batches)) == 24
        assert max(map(len, batches)) == 3


async def test_more_than_the_cache_holds_is_served_in_the_end(model):
    """Eight requests need four times the cache: the library drops and computes again, and no answer changes."""
    prompts = [TokensPrompt(token_ids=[20 + i] * 40) for i in range(8)]
    values = {"max_tokens": 60, "temperature": 1.0, "logprobs": 1, "presence_penalty": 0.5}
    async with Opened(model) as roomy:
        wanted = [await first(roomy, p, seed=i, **values) for i, p in enumerate(prompts)]
    ways = [{"delivery": ("delta", "final")[i % 2]} for i in range(8)]
    async with Opened(model, num_blocks=14, max_model_len=120) as engine:
        got = await asyncio.gather(*(first(engine, p, seed=i, fields=ways[i], **values) for i, p in enumerate(prompts)))
    assert [choice.token_ids for choice in got] == [choice.token_ids for choice in wanted]
    assert all(len(choice.logprobs) == 60 for choice in got)


async def test_a_context_that_was_asked_for_is_given(model):
    async with Opened(model, max_model_len=None, num_blocks=None) as engine:
        assert engine.info.context_length == 2048  # the model's own
    async with Opened(model, max_model_len=300) as engine:
        assert engine.info.context_length == 300


@pytest.mark.parametrize(("dtype", "held"), [("bfloat16", "bfloat16"), ("float32", "float32"), ("auto", "bfloat16")])
async def test_dtype(model, dtype, held):
    async with Opened(model, dtype=dtype) as engine:
        assert engine.info.details["dtype"] == held
        assert len((await first(engine)).token_ids) == 12


async def test_every_attention_gives_the_same_text(model):
    """Of requests of many lengths, some sharing a prefix, that join and leave a batch while others run."""
    names = {"auto": "trunnion_paged", "sdpa": "sdpa", "eager": "paged|eager"}
    asked = [(PROMPT * (1 + index % 3) + f" {index}", 4 + 3 * (index % 5)) for index in range(24)]
    texts = {}
    for attention, name in names.items():
        async with Opened(model, attention=attention, max_batch_tokens=64, max_requests_per_batch=16) as engine:
            assert engine.info.details["attention"] == name
            answers = await asyncio.gather(*(first(engine, prompt, max_tokens=tokens) for prompt, tokens in asked))
            texts[attention] = [answer.token_ids for answer in answers]
    assert texts["auto"] == texts["eager"] == texts["sdpa"]


async def test_threads_are_torch_s(model):
    import torch

    for count in (2, 1):
        async with Opened(model, threads=count) as engine:
            assert await engine._runner.call(torch.get_num_threads) == count


async def test_a_seed_of_the_engine_s_own(model):
    drawn = []
    for seed in (3, 3, 4):
        async with Opened(model, seed=seed) as engine:
            drawn.append(tuple((await first(engine, temperature=2.0)).token_ids))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("limit", [1, 20])
async def test_how_long_a_turn_is(model, adapters, limit):
    async with Opened(model, adapters=adapters, adapter_turn_steps=limit) as engine:
        manager, turns = engine._runner._manager, []
        activate = manager._activate
        manager._activate = lambda key: (turns.append(key), activate(key))
        await asyncio.gather(*(first(engine, max_tokens=40, fields={"adapter": name}) for name in (None, "pirate")))
    switches = sum(a != b for a, b in itertools.pairwise(turns))
    assert switches > 60 if limit == 1 else switches < 8


async def test_a_lower_priority_number_runs_first(model):
    async with Opened(model, max_requests_per_batch=1) as engine:
        ended = []

        async def run(priority):
            await events(engine, max_tokens=5, fields={"priority": priority})
            ended.append(priority)

        running = asyncio.create_task(run(9))
        while not engine.load().running:
            await asyncio.sleep(0.001)
        await asyncio.gather(running, *(run(priority) for priority in (5, 1, 3)))
    assert ended == [9, 1, 3, 5]


async def test_who_waits_is_looked_at_when_that_changed_not_with_every_step(model):
    async with Opened(model, max_requests_per_batch=2) as engine:
        scheduler, looked, steps = engine._runner._manager.scheduler, [], []
        gather, schedule = scheduler._get_waiting_candidates, scheduler.schedule_batch
        scheduler._get_waiting_candidates = lambda: (looked.append(1), gather())[1]
        scheduler.schedule_batch = lambda *budgets: (steps.append(1), schedule(*budgets))[1]
        given_up = asyncio.create_task(first(engine, max_tokens=30))
        others = [asyncio.create_task(first(engine, max_tokens=30)) for _ in range(5)]
        while not engine.load().waiting or not steps:
            await asyncio.sleep(0.001)
        given_up.cancel()
        assert all(len(choice.token_ids) == 30 for choice in await asyncio.gather(*others))
    assert len(steps) >= 75  # five times 30 tokens, two at a time
    assert len(looked) < 30


async def test_a_tokenizer_of_its_own(model, tmp_path):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{model}/{file}", tmp_path)
    async with Opened(model, tokenizer=str(tmp_path)) as engine:
        assert engine.info.tokenizer.path == str(tmp_path)
        assert (await first(engine, PROMPT)).token_ids
    async with Opened(model, tokenizer=str(tmp_path / "none")) as engine:
        assert engine.info.tokenizer is None


async def test_a_revision_is_asked_for(model, monkeypatch):
    import transformers

    asked = []
    original = transformers.AutoConfig.from_pretrained

    def recorded(path, **kwargs):
        asked.append(kwargs.get("revision"))
        return original(path, **kwargs)

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", recorded)
    async with Opened(model, revision="v7") as engine:
        assert engine.info.tokenizer.revision == "v7"
    assert asked[0] == "v7"


async def test_code_that_comes_with_a_model_runs_only_if_trusted(model, tmp_path):
    path = tmp_path / "own"
    shutil.copytree(model, path, ignore=shutil.ignore_patterns("adapters"))
    held = json.loads((path / "config.json").read_text())
    held.update(
        model_type="trunnion-own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnLM"}
    )
    (path / "config.json").write_text(json.dumps(held))
    (path / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'trunnion-own'\n"
        "class OwnLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(ConfigError, match="trust_remote_code"):
        await TransformersEngine(str(path), config()).start()
    async with Opened(path, trust_remote_code=True) as engine:
        assert type(engine._runner._manager.model).__name__ == "OwnLM"
        assert engine.info.tokenizer.trust_remote_code


async def test_further_settings_reach_the_library(model):
    async with Opened(model, engine_kwargs={"safety_margin": 0.4, "allow_block_sharing": False}) as engine:
        processor = engine._runner._manager.batch_processor
        assert processor.scheduler.safety_margin == 0.4
        assert not processor.cache.use_prefix_sharing
        assert engine.info.details["safety_margin"] == 0.4


def test_the_shared_settings_are_settings():
    assert set(SETTINGS) <= set(TransformersConfig.model_fields)
    assert ask().sampling.max_tokens == 12
