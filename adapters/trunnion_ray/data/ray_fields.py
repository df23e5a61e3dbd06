"""Translate the configuration of ``ray.data.llm`` for vLLM, field by field; what cannot be honoured is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from trunnion import Bundle, StageSpec
from trunnion.errors import UnsupportedFeature
from trunnion.pooling import TASKS

from .config import ProcessorConfig
from .ray_llm import (
    ChatTemplateStageConfig,
    DetokenizeStageConfig,
    PrepareMultimodalStageConfig,
    TokenizerStageConfig,
    stage_of,
    vLLMEngineProcessorConfig,
)

_STAGES: Final[dict[str, Any]] = {
    "chat_template_stage": ChatTemplateStageConfig,
    "tokenize_stage": TokenizerStageConfig,
    "detokenize_stage": DetokenizeStageConfig,
    "prepare_multimodal_stage": PrepareMultimodalStageConfig,
}
_FUSED: Final = ("batch_size", "concurrency", "runtime_env", "num_cpus", "memory")
_PASSED: Final = (
    "batch_size",
    "accelerator_type",
    "runtime_env",
    "max_concurrent_batches",
    "max_tasks_in_flight_per_actor",
)
Source = vLLMEngineProcessorConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """Hold what a mirrored configuration says in ours. ``detokenize_asked``: rows may switch their text off."""

    config: dict[str, Any]
    detokenize_asked: bool


def translate(source: Source) -> Translation:
    """Return the translation. Raises :class:`UnsupportedFeature` whose ``param`` names the field."""
    made: dict[str, Any] = {"engine": "vllm", "config": {}, "columns": {}, "stages": []}
    for rule in RULES.values():
        rule(source, made)
    made["stages"] = tuple(made["stages"])
    return Translation(config=made, detokenize_asked=not _stage(source, "detokenize_stage").enabled)


def processor_config(source: Source) -> ProcessorConfig:
    """Return our configuration for a mirrored one."""
    return ProcessorConfig(**translate(source).config)


def _refuse(field: str, reason: str) -> UnsupportedFeature:
    return UnsupportedFeature(f"{field} cannot be honoured here: {reason}", param=field)


def _stage(source: Source, name: str) -> Any:
    """Return a stage's configuration; Ray 2.44's flat field wins where it is given."""
    flat = _FLAT.get(name)
    given = None if flat is None else getattr(source, flat)
    return stage_of(name, getattr(source, name) if given is None else given, _STAGES[name])


_FLAT: Final = {
    "chat_template_stage": "apply_chat_template",
    "tokenize_stage": "tokenize",
    "detokenize_stage": "detokenize",
    "prepare_multimodal_stage": "has_image",
}


def _check_stage(source: Source, name: str) -> Any:
    stage = _stage(source, name)
    for setting in _FUSED:
        if getattr(stage, setting) is not None:
            reason = "the stage runs inside the engine's actor and has no workers of its own; leave it out"
            raise _refuse(f"{name}.{setting}", reason)
    other = getattr(stage, "model_source", None)
    if other is not None and other != source.model_source:
        raise _refuse(f"{name}.model_source", "the stages share the engine's tokenizer; set engine_kwargs['tokenizer']")
    return stage


def _pass(name: str) -> Callable[[Source, dict[str, Any]], None]:
    def rule(source: Source, made: dict[str, Any]) -> None:
        value = getattr(source, name)
        if value is not None:
            made[name] = value

    return rule


def _model(source: Source, made: dict[str, Any]) -> None:
    made["model"] = source.model_source


def _concurrency(source: Source, made: dict[str, Any]) -> None:
    value = source.concurrency
    made["concurrency"] = (1, value) if isinstance(value, int) and value > 1 else value


def _pending(source: Source, made: dict[str, Any]) -> None:
    value = source.max_pending_requests
    made["max_pending_requests"] = value if value is not None and value > 0 else None


def _continue(source: Source, made: dict[str, Any]) -> None:
    made["on_error"] = "row" if source.should_continue_on_error else "raise"


def _chat_template(source: Source, made: dict[str, Any]) -> None:
    stage = cast("ChatTemplateStageConfig", _check_stage(source, "chat_template_stage"))
    if not stage.enabled:
        made["columns"]["messages"] = ""  # rows bring their prompt as text
    template = stage.chat_template or source.chat_template
    if template is not None:
        made["stages"].append(StageSpec(stage="chat_template", config={"chat_template": template}))
    if stage.chat_template_kwargs:
        made["chat_template_kwargs"] = stage.chat_template_kwargs


def _tokenize(source: Source, made: dict[str, Any]) -> None:
    stage = _check_stage(source, "tokenize_stage")
    # Without the stage rows may bring their token ids; who tokenizes the others does not change the answer.
    made["columns"]["prompt_token_ids"] = "" if stage.enabled else "tokenized_prompt"


def _detokenize(source: Source, _: dict[str, Any]) -> None:
    _check_stage(source, "detokenize_stage")  # its effect is Translation.detokenize_asked


def _multimodal(source: Source, _: dict[str, Any]) -> None:
    if _stage(source, "prepare_multimodal_stage").enabled:
        field = "has_image" if source.has_image else "prepare_multimodal_stage"
        raise _refuse(field, "images in `messages` need no stage of their own; leave it off")
    _check_stage(source, "prepare_multimodal_stage")


def _engine_kwargs(source: Source, made: dict[str, Any]) -> None:
    made["config"]["engine_kwargs"] = dict(source.engine_kwargs)
    if "model" in source.engine_kwargs:
        raise _refuse("engine_kwargs.model", "the model is named by model_source")


def _task(source: Source, made: dict[str, Any]) -> None:
    task = str(getattr(source.task_type, "value", source.task_type))
    if task == "score":
        reason = 'a row of Ray\'s is one prompt and no pair; use ProcessorConfig(task="score") with query and texts'
        raise _refuse("task_type", reason)
    if task not in TASKS:
        raise _refuse("task_type", f"there is no {task!r}; there are generate, embed and classify")
    made["task"] = task
    if task != "generate" and not {"runner", "task"} & set(source.engine_kwargs):
        made["config"]["runner"] = "pooling"


def _metrics(source: Source, _: dict[str, Any]) -> None:
    if source.log_engine_metrics:
        raise _refuse("log_engine_metrics", "vLLM's metrics are not sent to Ray's endpoint; leave it out")


def _lora(source: Source, made: dict[str, Any]) -> None:
    path = source.dynamic_lora_loading_path
    if path is not None and "://" in path:
        raise _refuse(
            "dynamic_lora_loading_path", f"{path} is remote; copy the adapters to a folder that every node has"
        )
    if path is not None or source.engine_kwargs.get("enable_lora"):
        made["adapter_root"] = path or ""


def _placement(source: Source, made: dict[str, Any]) -> None:
    group = source.placement_group_config
    if group is None:
        return
    field = "placement_group_config"
    unknown = sorted(set(group) - {"bundles", "bundle_per_worker", "strategy"})
    if unknown or bool(group.get("bundles")) == bool(group.get("bundle_per_worker")):
        what = f"it has no setting {unknown[0]!r}" if unknown else "give either bundles or bundle_per_worker"
        raise _refuse(field, what)
    ranks = 1
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        ranks *= int(source.engine_kwargs.get(name) or 1)
    bundles = group.get("bundles") or [group["bundle_per_worker"]] * ranks
    made["bundles"] = tuple(_bundle(bundle) for bundle in bundles)
    if group.get("strategy"):
        made["strategy"] = group["strategy"]


def _bundle(given: Mapping[str, float]) -> Bundle:
    rest = {name: float(amount) for name, amount in given.items() if name not in ("CPU", "GPU", "memory")}
    memory = given.get("memory")
    return Bundle(
        cpu=float(given.get("CPU", 0)),
        gpu=float(given.get("GPU", 0)),
        memory=None if memory is None else int(memory),
        custom=rest,
    )


def _within(owner: str) -> Callable[[Source, dict[str, Any]], None]:
    """Name the rule that reads a field of Ray 2.44 together with today's."""

    def rule(_: Source, __: dict[str, Any]) -> None:
        assert owner in RULES

    return rule


RULES: Final[dict[str, Callable[[Source, dict[str, Any]], None]]] = {
    **{name: _pass(name) for name in _PASSED},
    "model_source": _model,
    "model": _within("model_source"),
    "concurrency": _concurrency,
    "max_pending_requests": _pending,
    "should_continue_on_error": _continue,
    "chat_template_stage": _chat_template,
    "apply_chat_template": _within("chat_template_stage"),
    "chat_template": _within("chat_template_stage"),
    "tokenize_stage": _tokenize,
    "tokenize": _within("tokenize_stage"),
    "detokenize_stage": _detokenize,
    "detokenize": _within("detokenize_stage"),
    "prepare_multimodal_stage": _multimodal,
    "has_image": _within("prepare_multimodal_stage"),
    "engine_kwargs": _engine_kwargs,
    "task_type": _task,
    "log_engine_metrics": _metrics,
    "dynamic_lora_loading_path": _lora,
    "placement_group_config": _placement,
}
"""What each field does; a test holds the names equal to those of both generations."""
