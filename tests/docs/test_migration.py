"""docs/migration.md tells of every field of Ray's own classes, and what it tells is so."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import trunnion_ray.data as batch
import trunnion_ray.serve as service
from trunnion.errors import TrunnionError
from trunnion_ray.serve.mirror.rules import RULES, Mapped

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ((?:same|refused)[^|]*) \| ([^|]*)\|$", re.MULTILINE)
FIELDS = {
    title: {name: (status, own) for name, status, own in ROW.findall(text)}
    for title, text in re.findall(r"^### (\w+)\n(.*?)(?=^##)", PAGE, flags=re.DOTALL | re.MULTILINE)
}
BATCH = {title for title in FIELDS if title.endswith(("ProcessorConfig", "StageConfig"))}
NESTED = {"CPUConfig", "GPUConfig", "TPUConfig"}
WHOLE = {"SGLangEngineProcessorConfig"}
STAGES = {
    "ChatTemplateStageConfig": "chat_template_stage",
    "TokenizerStageConfig": "tokenize_stage",
    "DetokenizeStageConfig": "detokenize_stage",
    "PrepareMultimodalStageConfig": "prepare_multimodal_stage",
}
ALONE = {"HttpRequestStageConfig": "http_request_stage"}

SAMPLE = {
    "batch_size": 8, "concurrency": 2, "accelerator_type": "CPU", "runtime_env": {"env_vars": {}}, "num_cpus": 1.0,
    "memory": 1e9, "max_pending_requests": 3, "max_concurrent_batches": 2, "max_tasks_in_flight_per_actor": 4,
    "should_continue_on_error": True, "engine_kwargs": {"max_model_len": 64}, "model_source": "m", "enabled": True,
    "chat_template_stage": False, "tokenize_stage": False, "detokenize_stage": False, "chat_template": "x",
    "chat_template_kwargs": {"a": 1}, "prepare_multimodal_stage": False, "task_type": "generate",
    "log_engine_metrics": False, "dynamic_lora_loading_path": "/adapters", "headers": {"a": "b"}, "qps": 3,
    "placement_group_config": {"bundles": [{"CPU": 1}]}, "url": "http://127.0.0.1:1/x", "max_retries": 1,
    "base_retry_wait_time_in_s": 0.5, "http_request_stage": {"batch_size": 3}, "deployment_name": "d", "app_name": "a",
    "dtype_mapping": {"x": dict}, "request_timeout_s": 3.0,
}  # fmt: skip
"""A value with which a field that is the *same* is taken."""
BAD = {
    "prepare_multimodal_stage": True, "task_type": "score", "log_engine_metrics": True, "session_factory": dict,
    "dynamic_lora_loading_path": "s3://b/a", "http_request_stage": False, "batch_size": 8, "concurrency": 2,
    "runtime_env": {}, "num_cpus": 1.0, "memory": 1e9, "model_source": "other", "model_config_kwargs": {"a": 1},
    "chat_template_content_format": "openai", "apply_sys_msg_formatting": True,
}  # fmt: skip
"""A value with which a field is *refused*."""


def ray_classes() -> dict[str, Any]:
    data = pytest.importorskip("ray.data.llm", exc_type=ImportError)
    serve = pytest.importorskip("ray.serve.llm", exc_type=ImportError)
    nested = importlib.import_module("ray.llm._internal.serve.core.configs.llm_config")
    public = [getattr(module, name) for module in (data, serve) for name in module.__all__]
    public += [getattr(nested, name) for name in NESTED]
    return {cls.__name__: cls for cls in public if hasattr(cls, "model_fields")}


@pytest.mark.slow
def test_every_field_of_every_class_of_the_installed_ray_is_told() -> None:
    there = {name: set(cls.model_fields) for name, cls in ray_classes().items()}
    told = {title: set(fields) for title, fields in FIELDS.items()}
    for name in WHOLE:
        assert told.pop(name) == set()
        there.pop(name)
    assert told == there


@pytest.mark.slow
def test_every_name_of_the_installed_ray_is_told() -> None:
    for module in ("ray.data.llm", "ray.serve.llm"):
        for name in importlib.import_module(module).__all__:
            assert f"`{name}`" in PAGE or name in FIELDS or name == "Processor"


def make(title: str, **fields: Any) -> Any:
    """Make a mirrored configuration in which these fields are set."""
    if title in STAGES:
        return make("vLLMEngineProcessorConfig", **{STAGES[title]: fields})
    if title in ALONE:
        return make("HttpRequestProcessorConfig", **{ALONE[title]: fields})
    needed = {
        "vLLMEngineProcessorConfig": {"model_source": "m"},
        "HttpRequestProcessorConfig": {"url": "http://127.0.0.1:1/x"},
        "ServeDeploymentProcessorConfig": {"deployment_name": "d"},
    }.get(title, {})
    return getattr(batch, title)(**{**needed, **fields})


CASES = [(title, field) for title in sorted(BATCH - WHOLE) for field in FIELDS[title]]


@pytest.mark.parametrize(("title", "field"), [c for c in CASES if FIELDS[c[0]][c[1]][0].startswith("same")])
def test_what_is_the_same_is_taken(title: str, field: str) -> None:
    value = False if title == "PrepareMultimodalStageConfig" else SAMPLE[field]
    assert make(title, **{field: value})


@pytest.mark.parametrize(("title", "field"), [c for c in CASES if "refused" in FIELDS[c[0]][c[1]][0]])
def test_what_is_refused_is_refused_by_its_name(title: str, field: str) -> None:
    value = title == "PrepareMultimodalStageConfig" if field == "enabled" else BAD[field]
    with pytest.raises(TrunnionError) as caught:
        make(title, **{field: value})
    assert field in str(caught.value) or STAGES.get(title, ALONE.get(title, "?")) in str(caught.value)


def test_a_class_that_is_refused_as_a_whole_is() -> None:
    for name in WHOLE:
        with pytest.raises(TrunnionError, match="SGLang"):
            getattr(batch, name)(model_source="m")


@pytest.mark.parametrize("title", RULES)
def test_the_words_on_serving_agree_with_the_rules(title: str) -> None:
    """Tests of the rules themselves hold them to what happens."""
    assert set(FIELDS[title]) == set(RULES[title])
    for field, rule in RULES[title].items():
        assert FIELDS[title][field][0].startswith("same" if isinstance(rule, Mapped) else "refused"), field


def test_tpus_are_refused_and_the_others_are_not() -> None:
    loading = service.ModelLoadingConfig(model_id="m")
    for kind in ("cpu", "gpu"):
        assert service.LLMConfig(model_loading_config=loading, llm_engine="sim", accelerator_config={"kind": kind})
    with pytest.raises(TrunnionError, match="TPU"):
        service.LLMConfig(model_loading_config=loading, llm_engine="sim", accelerator_config={"kind": "tpu"})


OWN = {
    *batch.ProcessorConfig.model_fields, *service.ModelConfig.model_fields, *service.GatewayConfig.model_fields,
    *service.AppConfig.model_fields, "headers_env", "api_key_env",
}  # fmt: skip


@pytest.mark.parametrize("title", FIELDS)
def test_our_own_fields_are_there(title: str) -> None:
    for field, (_, own) in FIELDS[title].items():
        for quoted in re.findall(r"`([^`(][^`]*)`", own):
            name = re.match(r"(?:\w+\()?(\w+)", quoted)
            assert name is not None
            assert name[1] in OWN | {"stage", "sampling_params"}, f"{title}.{field}: {quoted} is no field of ours"
