"""The conversion of sampling parameters, without a model."""

import pytest

from trunnion.errors import UnsupportedFeature
from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, Regex
from trunnion.requests import GenerateRequest, SamplingParams, TokensPrompt

pytestmark = pytest.mark.engine  # importing vLLM takes ten seconds


@pytest.fixture(scope="module")
def converter(vllm_environment):
    from trunnion_vllm.sampling import SamplingConverter

    return SamplingConverter({"temperature": 0.6, "top_p": 0.9, "max_tokens": 99})


def request(fields=None, **values):
    return GenerateRequest(prompt=TokensPrompt(token_ids=[1]), sampling=SamplingParams(**values), **(fields or {}))


def test_none_takes_the_model_s_default(converter):
    params = converter.convert(request())
    assert (params.temperature, params.top_p, params.max_tokens) == (0.6, 0.9, 99)
    params = converter.convert(request(temperature=1.0, max_tokens=3))
    assert (params.temperature, params.top_p, params.max_tokens) == (1.0, 0.9, 3)


def test_without_a_default_max_tokens_is_open():
    from trunnion_vllm.sampling import SamplingConverter

    assert SamplingConverter().convert(request()).max_tokens is None


VALUES = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "max_tokens": 9,
    "min_tokens": 2,
    "n": 3,
    "stop": ("x",),
    "stop_token_ids": (4,),
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "seed": 11,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "repetition_penalty": 1.5,
    "logit_bias": {3: 1.5},
    "logprobs": 2,
    "prompt_logprobs": 1,
    "skip_special_tokens": False,
}


def test_every_field_arrives(converter):
    assert set(VALUES) == set(SamplingParams.__dataclass_fields__), "a field has no value in the table above"
    params = converter.convert(request(**VALUES))
    for name, value in VALUES.items():
        assert getattr(params, name) == (list(value) if isinstance(value, tuple) else value), name


def test_delivery_and_text(converter):
    kind = type(converter.convert(request()).output_kind)
    assert converter.convert(request()).output_kind is kind.DELTA
    final = converter.convert(request({"delivery": "final", "detokenize": False}))
    assert final.output_kind is kind.FINAL_ONLY
    assert final.detokenize is False
    assert converter.convert(request({"detokenize": False}, stop=("x",))).detokenize is True


@pytest.mark.parametrize(
    ("output_format", "field", "value"),
    [
        (JsonObject(), "json_object", True),
        (JsonSchema(schema={"type": "object"}), "json", {"type": "object"}),
        (Regex(pattern="a+"), "regex", "a+"),
        (Choice(choices=("a", "b")), "choice", ["a", "b"]),
        (Grammar(grammar="root ::= 'a'"), "grammar", "root ::= 'a'"),
    ],
)
def test_formats(converter, output_format, field, value):
    params = converter.convert(request({"output_format": output_format}))
    assert getattr(params.structured_outputs, field) == value


def test_equal_parameters_are_converted_once(converter):
    same = SamplingParams(top_k=7)
    first, second = (GenerateRequest(prompt=TokensPrompt(token_ids=[i]), sampling=same) for i in (1, 2))
    assert converter.convert(first) is converter.convert(second)
    assert converter.convert(request(top_k=7)) is converter.convert(first)
    assert converter.convert(request({"delivery": "final"}, top_k=7)) is not converter.convert(first)


def test_shared_parameters_are_copied_for_each_request(converter):
    params = converter.convert(request(stop_token_ids=(4,)))
    copy = params.clone()
    assert copy is not params
    copy.update_from_generation_config({"eos_token_id": [8, 9]}, 8)
    assert params.stop_token_ids == [4]


def test_the_cache_is_bounded(converter):
    for seed in range(2000):
        converter.convert(request(seed=seed))
    assert len(converter._by_value) <= 256
    assert len(converter._by_identity) <= 256


def test_an_older_vllm_is_not_asked_for_what_it_lacks(converter, monkeypatch):
    from trunnion_vllm import _vllm

    monkeypatch.setattr(_vllm, "SAMPLING_FIELDS", _vllm.SAMPLING_FIELDS - {"bad_words"})
    request = GenerateRequest(prompt=TokensPrompt(token_ids=[1]), extra={"vllm": {"bad_words": ["x"]}})
    with pytest.raises(UnsupportedFeature, match="no sampling parameter 'bad_words'") as caught:
        converter.convert(request)
    assert caught.value.param == "extra.vllm.bad_words"
