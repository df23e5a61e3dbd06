import pickle

import pytest

import trunnion as t
from trunnion.capabilities import HINTS, PROTOCOLS, check_extra, check_features, used_features
from trunnion.errors import UnsupportedFeature

SAMPLING = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "max_tokens": 5, "min_tokens": 1, "n": 2,
    "stop": ("a",), "stop_token_ids": (1,), "include_stop_str_in_output": True, "ignore_eos": True, "seed": 1,
    "presence_penalty": 1.0, "frequency_penalty": 1.0, "repetition_penalty": 1.1, "logit_bias": {1: 1.0},
    "logprobs": 0, "prompt_logprobs": 0, "skip_special_tokens": False,
}  # fmt: skip
REQUEST = {
    "tools": ({"type": "function"},),
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "adapter": "a",
    "priority": -1,
    "cache_salt": "s",
    "handoff": {"x": 1},
}
STRUCTURAL = {
    "prompt": "planned by kind",
    "request_id": "an identifier",
    "sampling": "classified field by field",
    "media": "classified by type",
    "output_format": "classified by kind",
    "delivery": "engines pick their cheap mode",
    "model": "for routers",
    "deadline": "enforced by the pipeline",
    "extra": "checked by engine name",
    "notes": "between hooks and stages; no engine sees it",
}
FORMATS = [
    t.JsonObject(), t.JsonSchema(schema={}), t.Regex(pattern="a"), t.Choice(choices=("a",)), t.Grammar(grammar="a"),
]  # fmt: skip


def ask(**fields):
    return t.GenerateRequest(**{"prompt": t.TextPrompt(text="x"), **fields})


def test_every_field_of_a_request_is_classified():
    fields = set(t.GenerateRequest.__dataclass_fields__)
    assert fields == set(REQUEST) | set(STRUCTURAL) | set(HINTS), "classify the new field in trunnion.capabilities"
    assert set(REQUEST) | set(HINTS) <= set(t.FEATURES)
    assert set(t.SamplingParams.__dataclass_fields__) == set(SAMPLING), "give the new parameter a test value"


def test_features_are_sorted_and_unique():
    assert list(t.FEATURES) == sorted(set(t.FEATURES))


def test_a_plain_request_uses_nothing():
    assert used_features(ask()) == []


@pytest.mark.parametrize("name", SAMPLING)
def test_each_sampling_parameter_is_a_feature(name):
    values = {name: SAMPLING[name]}
    assert used_features(ask(sampling=t.SamplingParams(**values))) == [f"sampling.{name}"]


@pytest.mark.parametrize(
    "values",
    [
        {"presence_penalty": 0, "frequency_penalty": 0.0},
        {"repetition_penalty": 1.0, "top_p": 1},
        {"min_p": 0.0, "min_tokens": 0},
    ],
)
def test_values_that_ask_for_nothing_use_nothing(values):
    assert used_features(ask(sampling=t.SamplingParams(**values))) == []


@pytest.mark.parametrize("name", REQUEST)
def test_each_request_field_is_a_feature(name):
    assert used_features(ask(**{name: REQUEST[name]})) == [name]


@pytest.mark.parametrize("wanted", FORMATS, ids=lambda f: f.kind)
def test_each_format_is_a_feature(wanted):
    assert used_features(ask(output_format=wanted)) == [f"output_format.{wanted.kind}"]
    assert f"output_format.{wanted.kind}" in t.FEATURES


def test_media_are_features_by_type():
    media = tuple(t.MediaPart(type=kind, url="x") for kind in ("video", "image", "audio", "image"))
    assert used_features(ask(media=media)) == ["media.audio", "media.image", "media.video"]


@pytest.mark.parametrize("name", sorted(HINTS))
def test_hints_are_never_refused(name):
    value = {"trace": {"traceparent": "x"}, "detokenize": False}.get(name, "x")
    assert used_features(ask(**{name: value})) == []


def test_several_are_listed_in_order():
    used = used_features(ask(sampling=t.SamplingParams(seed=1, n=2), adapter="a", output_format=t.JsonObject()))
    assert used == ["sampling.n", "sampling.seed", "adapter", "output_format.json_object"]


@pytest.mark.parametrize("support", [*t.Support, None])
def test_three_values_are_enforced(support):
    features = {} if support is None else {"sampling.seed": support}
    capabilities = t.Capabilities(features=features, reasons={"sampling.seed": "it draws by dice"})
    if support in (t.Support.YES, t.Support.UNKNOWN):
        check_features(["sampling.seed"], capabilities, engine="e", supplied=frozenset())
        return
    with pytest.raises(UnsupportedFeature) as caught:
        check_features(["sampling.seed"], capabilities, engine="e", supplied=frozenset())
    assert caught.value.param == "seed"
    assert caught.value.details == {"engine": "e", "feature": "sampling.seed"}
    assert "engine 'e' does not support seed: it draws by dice; leave seed out" in caught.value.message
    check_features(["sampling.seed"], capabilities, engine="e", supplied=frozenset({"sampling.seed"}))


def test_extra_of_another_engine_is_refused():
    check_extra(ask(extra={"vllm": {}}), engine="vllm")
    check_extra(ask(), engine="vllm")
    with pytest.raises(UnsupportedFeature, match="is for engine 'vllm'") as caught:
        check_extra(ask(extra={"vllm": {}}), engine="sim")
    assert caught.value.param == "extra.vllm"


def test_misspelt_names_are_refused_where_they_are_declared():
    for wrong in ({"yes": ("sampling.sed",)}, {"protocols": ("embeds",)}, {"no": ("samplings.*",)}):
        with pytest.raises(ValueError, match="unknown features or protocols"):
            t.Capabilities.of(**wrong)
    with pytest.raises(ValueError, match=r"sampling\.max_token \(did you mean 'sampling\.max_tokens'\?\)"):
        t.Capabilities.of(yes=("sampling.max_token",))


def test_a_name_beats_its_group_and_caution_beats_haste():
    made = t.Capabilities.of(
        yes=("sampling.*", "tools", "output_format.regex"),
        unknown=("tools",),
        no=("sampling.logit_bias", "output_format.*"),
    )
    assert made.support("sampling.seed") is t.Support.YES
    assert made.support("sampling.logit_bias") is t.Support.NO
    assert made.support("tools") is t.Support.UNKNOWN
    assert made.support("output_format.regex") is t.Support.YES
    assert made.support("output_format.choice") is t.Support.NO
    assert made.support("adapter") is t.Support.NO


def test_narrowed_changes_a_copy():
    made = t.Capabilities.of(
        yes=("output_format.regex",), prompts=("text",), protocols=PROTOCOLS[:1], reasons={"tools": "x"}
    )
    lower = made.narrowed(output_format__regex=t.Support.NO)
    assert lower.support("output_format.regex") is t.Support.NO
    assert made.support("output_format.regex") is t.Support.YES
    assert (lower.prompts, lower.protocols, lower.reasons) == (made.prompts, made.protocols, made.reasons)
    with pytest.raises(ValueError, match="unknown features"):
        made.narrowed(output_format__rgx=t.Support.NO)


def test_capabilities_are_read_only_and_travel():
    made = t.Capabilities.of(yes=("tools",), reasons={"tools": "x"})
    with pytest.raises(TypeError):
        made.features["tools"] = t.Support.NO
    assert pickle.loads(pickle.dumps(made)) == made


def test_media_may_want_another_prompt_kind():
    made = t.Capabilities(prompts=("token_ids",), media_prompts=("messages",))
    assert made.prompts_for(ask()) == ("token_ids",)
    assert made.prompts_for(ask(media=(t.MediaPart(type="image", url="x"),))) == ("messages",)
    assert t.Capabilities(prompts=("text",)).prompts_for(ask(media=(t.MediaPart(type="image", url="x"),))) == ("text",)


def test_others_classifies_what_no_list_names():
    made = t.Capabilities.of(yes=["sampling.seed"], unknown=["output_format.*"], others="no")
    assert set(made.features) == set(t.FEATURES)
    assert made.support("sampling.seed") is t.Support.YES
    assert made.support("output_format.regex") is t.Support.UNKNOWN
    assert made.features["tools"] is t.Support.NO
    assert "tools" not in t.Capabilities.of(yes=["sampling.seed"]).features
    with pytest.raises(ValueError, match="others may be"):
        t.Capabilities.of(others="yes")
