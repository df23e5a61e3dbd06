import copy
import dataclasses
import pickle

import pytest

import trunnion as t
from trunnion.errors import ConfigError, InvalidArgument

VALUES = [
    t.SamplingParams(stop=("a",), logit_bias={1: 2.0}),
    t.GenerateRequest(prompt=t.TextPrompt(text="x"), sampling=t.SamplingParams(n=2), tools=({"type": "function"},)),
    t.GenerateEvent(choices=(t.ChoiceDelta(text="x"),), usage=t.Usage(prompt_tokens=1, completion_tokens=1)),
    t.EngineInfo(engine="e", model="m", capabilities=t.Capabilities.of(yes=("tools",), reasons={"tools": "yes"})),
    t.EngineSpec(engine="e", config={"a": [1, {"b": None}]}),
    t.PipelineSpec(engine=t.EngineSpec(engine="e"), stages=(t.StageSpec(stage="s"),), policy=t.PluginPolicy()),
    t.Resources(bundles=(t.Bundle(gpu=1, custom={"x": 1}),)),
    t.LoadReport(running=1, waiting=0, timestamp=1.0),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_and_travel(value):
    for name in value.__dataclass_fields__:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
    with pytest.raises((AttributeError, TypeError)):
        value.something_new = 1
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value


def test_every_public_value_is_frozen_with_slots():
    own = [v for v in vars(t).values() if isinstance(v, type) and dataclasses.is_dataclass(v)]
    collected = {t.Completion, t.CompletionChoice, t.ToolCall}  # filled while a stream is collected
    for cls in own:
        assert cls.__dataclass_params__.frozen or cls in collected, cls
        assert "__slots__" in vars(cls), cls
        assert all(f.kw_only for f in dataclasses.fields(cls)), cls


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", "0.3"), ("top_p", 0), ("top_p", 1.1),
        ("top_k", -2), ("top_k", "many"), ("min_p", 2), ("max_tokens", 0), ("max_tokens", "16"), ("min_tokens", -1),
        ("n", 0), ("n", None), ("presence_penalty", 3), ("frequency_penalty", -3), ("repetition_penalty", 0),
        ("logprobs", -1), ("stop", ("",)), ("stop", ("a", 1)),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(field, bad):
    with pytest.raises(InvalidArgument) as caught:
        t.SamplingParams(**{field: bad})
    if bad is not None:
        assert caught.value.param == field
        assert field in caught.value.message
        assert repr(bad) in caught.value.message or "nan" in caught.value.message


def test_min_tokens_fit_max_tokens():
    assert t.SamplingParams(min_tokens=4, max_tokens=4).min_tokens == 4
    with pytest.raises(InvalidArgument, match="between 0 and max_tokens"):
        t.SamplingParams(min_tokens=5, max_tokens=4)


@pytest.mark.parametrize("given", ["###", ["###"], ("###",)])
def test_stop_takes_what_openai_clients_send(given):
    params = t.SamplingParams(stop=given, stop_token_ids=[7])
    assert (params.stop, params.stop_token_ids) == (("###",), (7,))


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_no_stop_equals_the_default(nothing):
    assert t.SamplingParams(stop=nothing) == t.SamplingParams()


def test_request_ids_are_fresh_and_copies_keep_them():
    one, other = (t.GenerateRequest(prompt=t.TextPrompt(text="x")) for _ in range(2))
    assert one.request_id != other.request_id
    changed = one.with_(priority=3)
    assert (changed.request_id, changed.priority, one.priority) == (one.request_id, 3, 0)


def test_a_spec_is_json_and_comes_back():
    spec = t.EngineSpec(engine="e", model="m", config={"a": (1, 2), "b": {"c": None}}, plugin_version="1.2")
    assert spec.config == {"a": [1, 2], "b": {"c": None}}
    assert t.EngineSpec.from_json(spec.to_json()) == spec
    with pytest.raises(ConfigError, match="unknown key 'modle'"):
        t.EngineSpec.from_json({"engine": "e", "modle": "m"})
    with pytest.raises(ConfigError, match="no engine"):
        t.EngineSpec.from_json({"model": "m"})


@pytest.mark.parametrize("bad", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}])
def test_a_spec_refuses_what_is_not_json(bad):
    with pytest.raises(ConfigError, match="JSON"):
        t.EngineSpec(engine="e", config=bad)
    with pytest.raises(ConfigError, match=r"stages\.s\.config"):
        t.StageSpec(stage="s", config=bad)


def test_a_spec_keeps_no_hold_of_what_it_was_made_of():
    mine = {"a": [1]}
    spec = t.EngineSpec(engine="e", config=mine)
    mine["a"].append(2)
    assert spec.config == {"a": [1]}


def test_bundles_in_rays_words():
    bundle = t.Bundle(cpu=2, gpu=0.5, memory=1024, accelerator_type="H200", custom={"x": 1})
    assert bundle.to_ray() == {"CPU": 2, "GPU": 0.5, "memory": 1024.0, "accelerator_type:H200": 0.001, "x": 1}
    assert t.Bundle(cpu=0).to_ray() == {}
