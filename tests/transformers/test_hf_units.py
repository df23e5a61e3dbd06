"""The parts that need no engine: turns, plans, streams, pooling."""

import copy

import pytest

from trunnion.errors import Cancelled, ConfigError
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt
from trunnion_transformers.config import TransformersConfig
from trunnion_transformers.plan import Defaults, Plan, make_plan, salted
from trunnion_transformers.pooling import read_pooling
from trunnion_transformers.stream import Stream
from trunnion_transformers.turns import Turns


def played(turns, present, steps):
    """Return who ran in each step; ``present`` says who has something to run, by step."""
    ran = []
    for step in range(steps):
        key = turns.order(list(present(step)))[0]
        turns.ran(key)
        ran.append(key)
    return ran


def test_turns_are_bounded_and_go_round():
    assert "".join(played(Turns(3), lambda step: "abc", 12)) == "aaabbbcccaaa"


def test_who_is_alone_keeps_the_turn_and_yields_to_the_first_who_comes():
    assert "".join(played(Turns(3), lambda step: "a" if step < 10 else "ab", 16)) == "aaaaaaaaaa" + "bbbaaa"


def test_who_waits_longest_is_next():
    ran = played(Turns(2), lambda step: "ab" if step < 4 else "abc", 10)
    assert "".join(ran) == "aabb" + "ccaabb"


def test_everyone_may_try_whose_turn_it_is_first():
    turns = Turns(2)
    turns.ran("a")
    assert turns.order(["a", "b", None]) == ["a", "b", None]
    turns.ran("a")
    assert turns.order(["a", "b", None]) == ["b", None, "a"]
    turns.forget("a")


def plan(defaults=None, *, fields=None, eos=(1,), choice=0, adapter=None, **sampling):
    request = GenerateRequest(prompt=TextPrompt(text=""), sampling=SamplingParams(**sampling), **(fields or {}))
    return make_plan(request, defaults or Defaults(), choice=choice, adapter=adapter, prompt_tokens=3, eos=eos)


def test_a_model_s_own_sampling_is_the_default():
    own = Defaults.of(
        {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": None, "max_length": 20}
    )
    assert own == Defaults(temperature=0.6, top_k=20, top_p=0.9)
    assert (plan(own).temperature, plan(own).top_k, plan(own, top_k=-1).top_k) == (0.6, 20, 0)
    greedy = Defaults.of({"do_sample": False, "temperature": 0.6})
    assert (plan(greedy).temperature, plan(greedy, top_p=0.5).temperature) == (0.0, 1.0)
    assert plan(Defaults.of({})).temperature == 1.0


def test_a_plain_plan_asks_nothing_of_the_sampler():
    assert plan(temperature=0.0).plain
    for values in ({"temperature": 1.0}, {"logprobs": 0}, {"min_tokens": 1}, {"logit_bias": {1: 1}}):
        assert not plan(**{"temperature": 0.0, **values}).plain


def test_ends_are_eos_and_stop_ids():
    assert plan(stop_token_ids=(7, 1)).ends == (1, 7, 1)
    assert plan(stop_token_ids=(7, 1)).stop_token_ids == (7,)
    assert plan(stop_token_ids=(7, 1), ignore_eos=True).stop_token_ids == (7, 1)
    assert plan(ignore_eos=True).ends == ()


def test_a_salt_changes_every_block_s_hash_and_only_for_whom_it_is():
    assert plan().salt is None
    salts = [plan(adapter="a"), plan(adapter="b"), plan(fields={"cache_salt": "a"}), plan(fields={"cache_salt": "b"})]
    assert len({p.salt for p in salts}) == 4
    assert plan(adapter="a").salt == plan(adapter="a").salt
    tokens = list(range(10))
    assert salted(tokens, None) is tokens
    for p in salts:
        changed = salted(tokens, p.salt)
        assert changed[4:] == tokens[4:]
        assert all(0 <= a < 2**31 and a != b for a, b in zip(changed[:4], tokens, strict=False))


def test_choices_of_a_seeded_request_differ():
    assert [plan(seed=5, choice=i).seed for i in range(2)] == [5, 6]


def test_a_plan_stays_itself_when_the_library_copies_its_request():
    mine = Plan()
    assert copy.deepcopy({"plan": mine})["plan"] is mine


def stream(n=1, **values):
    return Stream([Plan(prompt_tokens=3, ends=(1,), **values) for _ in range(n)], name=str)


async def test_steps_that_pass_unseen_are_joined():
    s = stream()
    s.put(0, [5], finished=False)
    s.put(0, [6], finished=False)
    assert (await s.next()).choices[0].token_ids == [5, 6]
    s.put(0, [7, 1], finished=True)
    last = await s.next()
    assert (last.choices[0].token_ids, last.choices[0].finish_reason) == ([7, 1], "stop")
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 4)


async def test_a_choice_ends_once_and_usage_comes_with_the_last():
    s = stream(2)
    s.put(1, [5], finished=True)
    event = await s.next()
    assert [(c.index, c.finish_reason) for c in event.choices] == [(1, "length")]
    assert event.usage is None
    s.put(0, [8, 9], finished=True)
    event = await s.next()
    assert [(c.index, c.finish_reason) for c in event.choices] == [(0, "length")]
    assert event.usage.completion_tokens == 3


async def test_a_failure_is_raised_and_the_first_one_counts():
    s = stream()
    s.fail(Cancelled("first"))
    s.fail(Cancelled("second"))
    with pytest.raises(Cancelled, match="first"):
        await s.next()


def folder(tmp_path, kinds=("Transformer", "Pooling", "Normalize"), **pooling):
    import json

    modules = [{"path": kind, "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "Pooling").mkdir(exist_ok=True)
    (tmp_path / "Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "word_embedding_dimension": 4}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "max"}, "max"),
    ],
)
def test_pooling_is_what_the_files_say(tmp_path, pooling, mode):
    path = folder(tmp_path, **pooling)
    assert read_pooling(path, TransformersConfig()).mode == mode
    assert read_pooling(path, TransformersConfig(pooling="cls")).mode == "cls"


def test_normalizing_and_length_are_what_the_files_say(tmp_path):
    path = folder(tmp_path, ("Transformer", "Pooling"), pooling_mode="mean")
    assert not read_pooling(path, TransformersConfig()).normalize
    assert read_pooling(path, TransformersConfig(normalize=True)).normalize
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 77}')
    assert read_pooling(path, TransformersConfig()).max_tokens == 77


def test_without_files_it_is_the_mean_of_length_one(tmp_path):
    plain = read_pooling(str(tmp_path), TransformersConfig())
    assert (plain.mode, plain.normalize, plain.max_tokens) == ("mean", True, None)


@pytest.mark.parametrize(
    ("kinds", "pooling", "said"),
    [
        (("Transformer", "Pooling", "Dense"), {"pooling_mode": "mean"}, "Dense"),
        (("Transformer", "Pooling"), {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        (("Transformer", "Pooling"), {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, " and "),
    ],
)
def test_what_the_files_ask_for_beyond_is_refused(tmp_path, kinds, pooling, said):
    with pytest.raises(ConfigError, match=said):
        read_pooling(folder(tmp_path, kinds, **pooling), TransformersConfig())
