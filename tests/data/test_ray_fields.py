"""The mirrored configurations: every field of both generations has an effect, or is refused by name."""

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

import trunnion_ray.data as mirror
from trunnion import Bundle
from trunnion.errors import TrunnionError, UnsupportedFeature
from trunnion_ray.data import build_processor, vLLMEngineProcessorConfig
from trunnion_ray.data.ray_fields import RULES, processor_config, translate

OLD = {"apply_chat_template", "chat_template", "tokenize", "detokenize", "has_image"}
BASE = processor_config(vLLMEngineProcessorConfig(model_source="m"))


def ours(**fields):
    return processor_config(vLLMEngineProcessorConfig(model_source="m", **fields))


# Value -> what it changes in our configuration.
EFFECTS = {
    "batch_size": (64, {"batch_size": 64}),
    "accelerator_type": ("A10G", {"accelerator_type": "A10G"}),
    "concurrency": (3, {"concurrency": (1, 3)}),
    "runtime_env": ({"env_vars": {"A": "b"}}, {"runtime_env": {"env_vars": {"A": "b"}}}),
    "max_pending_requests": (100, {"max_pending_requests": 100}),
    "max_concurrent_batches": (8, {"max_concurrent_batches": 8}),
    "max_tasks_in_flight_per_actor": (30, {"max_tasks_in_flight_per_actor": 30}),
    "should_continue_on_error": (True, {"on_error": "row"}),
    "chat_template_stage": (False, {"columns": {"messages": "", "prompt_token_ids": ""}}),
    "tokenize_stage": (False, {"columns": {"prompt_token_ids": "tokenized_prompt"}}),
    "engine_kwargs": (
        {"max_model_len": 128},
        {"config": {"engine_kwargs": {"max_model_len": 128}}},
    ),
    "dynamic_lora_loading_path": ("/adapters", {"adapter_root": "/adapters"}),
    "placement_group_config": (
        {"bundles": [{"CPU": 1, "GPU": 1}] * 2, "strategy": "SPREAD"},
        {"bundles": (Bundle(cpu=1, gpu=1),) * 2, "strategy": "SPREAD"},
    ),
    "apply_chat_template": (False, {"columns": {"messages": "", "prompt_token_ids": ""}}),
    "tokenize": (False, {"columns": {"prompt_token_ids": "tokenized_prompt"}}),
}
REFUSED = {
    "task_type": "score",
    "log_engine_metrics": True,
    "prepare_multimodal_stage": True,
    "has_image": True,
    "dynamic_lora_loading_path": "s3://bucket/adapters",
}
ELSEWHERE = {"model_source", "model", "detokenize_stage", "detokenize", "chat_template"}  # tests of their own, below


def real(name):
    module = pytest.importorskip("ray.data.llm")
    return getattr(module, name)


def test_every_field_of_the_real_configuration_is_known():
    fields = set(real("vLLMEngineProcessorConfig").model_fields)
    assert fields <= set(vLLMEngineProcessorConfig.model_fields)
    assert set(vLLMEngineProcessorConfig.model_fields) == fields | OLD | {"model"}
    assert set(RULES) == set(vLLMEngineProcessorConfig.model_fields)
    assert set(EFFECTS) | set(REFUSED) | ELSEWHERE == set(RULES)


@pytest.mark.parametrize(
    "name",
    ["ChatTemplateStageConfig", "TokenizerStageConfig", "DetokenizeStageConfig", "PrepareMultimodalStageConfig"],
)
def test_every_field_of_the_real_stages_is_known(name):
    assert set(real(name).model_fields) == set(getattr(mirror, name).model_fields)


def test_every_public_name_is_there():
    module = pytest.importorskip("ray.data.llm")
    assert set(module.__all__) | {"build_llm_processor"} <= set(mirror.__all__)


@pytest.mark.parametrize("field", EFFECTS)
def test_a_field_has_its_effect(field):
    value, effect = EFFECTS[field]
    made = ours(**{field: value})
    changed = {
        name: getattr(made, name) for name in type(made).model_fields if getattr(made, name) != getattr(BASE, name)
    }
    assert changed == effect


@pytest.mark.parametrize("field", REFUSED)
def test_what_makes_no_sense_here_is_refused_by_name(field):
    with pytest.raises(TrunnionError) as caught:
        vLLMEngineProcessorConfig(model_source="m", **{field: REFUSED[field]})
    assert caught.value.param == field
    assert isinstance(caught.value, UnsupportedFeature)


@pytest.mark.parametrize("stage", ["chat_template_stage", "tokenize_stage", "detokenize_stage"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 3),
        ("concurrency", 2),
        ("runtime_env", {}),
        ("num_cpus", 0.5),
        ("memory", 1.0),
        ("model_source", "other"),
    ],
)
def test_the_stages_have_no_workers_of_their_own(stage, field, value):
    with pytest.raises(UnsupportedFeature) as caught:
        vLLMEngineProcessorConfig(model_source="m", **{stage: {field: value}})
    assert caught.value.param == f"{stage}.{field}"


def test_a_chat_template_is_passed_on():
    for fields in (
        {"chat_template_stage": {"chat_template": "T", "chat_template_kwargs": {"k": 1}, "model_source": "m"}},
        {"chat_template_stage": mirror.ChatTemplateStageConfig(chat_template="T", chat_template_kwargs={"k": 1})},
    ):
        made = ours(**fields)
        assert made.stages[0].config == {"chat_template": "T"}
        assert made.chat_template_kwargs == {"k": 1}
    assert ours(chat_template="T").stages[0].config == {"chat_template": "T"}


@pytest.mark.parametrize("field", ["detokenize", "detokenize_stage"])
def test_rows_may_switch_their_text_off_without_the_stage(field):
    assert not translate(vLLMEngineProcessorConfig(model_source="m")).detokenize_asked
    assert translate(vLLMEngineProcessorConfig(model_source="m", **{field: False})).detokenize_asked


def test_a_model_has_two_names():
    assert vLLMEngineProcessorConfig(model="m").model_source == "m"
    with pytest.raises(ValidationError, match="two names"):
        vLLMEngineProcessorConfig(model="m", model_source="n")
    with pytest.raises(ValidationError, match="model_source"):
        vLLMEngineProcessorConfig()


def test_no_limit_and_no_range():
    assert ours(max_pending_requests=0).max_pending_requests is None
    assert ours(concurrency=(2, 4)).concurrency == (2, 4)
    assert ours(engine_kwargs={"enable_lora": True}).adapter_root == ""
    assert ours(
        engine_kwargs={"tensor_parallel_size": 2}, placement_group_config={"bundle_per_worker": {"CPU": 1}}
    ).bundles == (Bundle(cpu=1), Bundle(cpu=1))


@pytest.mark.parametrize("group", [{}, {"bundles": [{"CPU": 1}], "bundle_per_worker": {"CPU": 1}}, {"bundel": 1}])
def test_a_placement_group_must_be_clear(group):
    with pytest.raises(UnsupportedFeature, match="placement_group_config"):
        vLLMEngineProcessorConfig(model_source="m", placement_group_config=group)


def test_what_has_no_engine_is_refused_clearly():
    fields = dict.fromkeys(real("SGLangEngineProcessorConfig").model_fields, 1)
    with pytest.raises(UnsupportedFeature, match="SGLangEngineProcessorConfig"):
        mirror.SGLangEngineProcessorConfig(**fields)


def test_chat_template_kwargs_may_come_last():
    processor = build_processor(
        vLLMEngineProcessorConfig(model_source="m"), builder_kwargs={"chat_template_kwargs": {"k": 1}}
    )
    assert processor.config.chat_template_kwargs == {"k": 1}


def test_an_object_of_another_kind_is_refused():
    with pytest.raises(TrunnionError, match="tokenize_stage"):
        vLLMEngineProcessorConfig(model_source="m", tokenize_stage=SimpleNamespace())
