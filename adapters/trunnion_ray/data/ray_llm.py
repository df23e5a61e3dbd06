"""Mirror the configurations of ``ray.data.llm``, of Ray 2.44 and of today: every field is known, none is ignored.

What a field does here, or why it is refused, is in :mod:`trunnion_ray.data.ray_fields`.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn, Self

from pydantic import Field, model_validator

from trunnion.errors import ConfigError, UnsupportedFeature
from trunnion.settings import Settings


class _StageConfig(Settings):
    enabled: bool = Field(default=True, description="Whether the stage is there.")
    batch_size: int | None = Field(default=None, description="Refused: the stages run inside the engine's actor.")
    concurrency: int | tuple[int, int] | None = Field(default=None, description="Refused, as batch_size.")
    runtime_env: dict[str, Any] | None = Field(default=None, description="Refused, as batch_size.")
    num_cpus: float | None = Field(default=None, description="Refused, as batch_size.")
    memory: float | None = Field(default=None, description="Refused, as batch_size.")


class ChatTemplateStageConfig(_StageConfig):
    """Configure the chat template."""

    model_source: str | None = Field(default=None, description="Refused unless it is the model itself.")
    chat_template: str | None = Field(default=None, description="Template, or its path, instead of the model's own.")
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, description="Variables of the template.")


class TokenizerStageConfig(_StageConfig):
    """Configure the tokenizer."""

    model_source: str | None = Field(default=None, description="Refused unless it is the model itself.")


class DetokenizeStageConfig(_StageConfig):
    """Configure the way from token ids to text."""

    model_source: str | None = Field(default=None, description="Refused unless it is the model itself.")


class PrepareMultimodalStageConfig(_StageConfig):
    """Configure the preparation of media; refused where it is enabled."""

    model_config_kwargs: dict[str, Any] | None = Field(default=None, description="Arguments of the model's config.")
    chat_template_content_format: Literal["string", "openai"] | None = Field(
        default="string", description="Form in which the template gets a message's content."
    )
    apply_sys_msg_formatting: bool | None = Field(default=False, description="Whether system messages are formatted.")


class vLLMEngineProcessorConfig(Settings):  # noqa: N801 - the name that programs import
    """Configure a batch on vLLM with the fields of ``ray.data.llm.vLLMEngineProcessorConfig``.

    ``model`` is another name of ``model_source``. The flat fields of Ray 2.44 (``apply_chat_template``,
    ``chat_template``, ``tokenize``, ``detokenize``, ``has_image``) stand beside the stage fields of today.
    """

    model_source: str = Field(description="Path or name of the model.")
    model: str | None = Field(default=None, description="Another name of model_source.")
    batch_size: int | None = Field(default=None, ge=1, description="Rows per block.")
    accelerator_type: str | None = Field(default=None, description='Accelerator of the nodes; None or "CPU" for any.')
    concurrency: int | tuple[int, int] = Field(default=1, description="Replicas: n scales from 1 to n.")
    runtime_env: dict[str, Any] | None = Field(default=None, description="Ray runtime environment of the replicas.")
    max_pending_requests: int | None = Field(
        default=None, description="Requests handed to the engine at once; 0 or less for no limit."
    )
    max_concurrent_batches: int | None = Field(default=None, ge=1, description="Blocks in a replica side by side.")
    max_tasks_in_flight_per_actor: int | None = Field(default=None, ge=1, description="Blocks assigned to a replica.")
    should_continue_on_error: bool = Field(
        default=False, description="Keep failed rows, with the column __inference_error__, instead of raising."
    )
    chat_template_stage: Any = Field(default=True, description="bool, dict or ChatTemplateStageConfig.")
    tokenize_stage: Any = Field(default=True, description="bool, dict or TokenizerStageConfig.")
    detokenize_stage: Any = Field(default=True, description="bool, dict or DetokenizeStageConfig.")
    prepare_multimodal_stage: Any = Field(default=False, description="Refused where it is enabled.")
    engine_kwargs: dict[str, Any] = Field(default_factory=dict, description="Engine arguments of vLLM.")
    task_type: str = Field(default="generate", description="generate, embed or classify; score is refused.")
    log_engine_metrics: bool | None = Field(default=None, description="True is refused.")
    dynamic_lora_loading_path: str | None = Field(default=None, description="Folder of LoRA adapters.")
    placement_group_config: dict[str, Any] | None = Field(
        default=None, description="bundles, or bundle_per_worker for each rank, and strategy."
    )
    apply_chat_template: bool | None = Field(default=None, description="Ray 2.44's chat_template_stage as a bool.")
    chat_template: str | None = Field(default=None, description="Ray 2.44's place of the template.")
    tokenize: bool | None = Field(default=None, description="Ray 2.44's tokenize_stage as a bool.")
    detokenize: bool | None = Field(default=None, description="Ray 2.44's detokenize_stage as a bool.")
    has_image: bool | None = Field(default=None, description="True is refused.")

    @model_validator(mode="before")
    @classmethod
    def _one_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model") is not None:
            if values.get("model_source") not in (None, values["model"]):
                msg = "model and model_source differ; they are two names of one thing, give one"
                raise ValueError(msg)
            return {**values, "model_source": values["model"]}
        return values

    @model_validator(mode="after")
    def _refuse(self) -> Self:
        """Refuse where the program can see it: at the configuration, not at the first row."""
        from .ray_fields import translate

        translate(self)
        return self


class _Refused:
    """Stand in for a configuration that nothing here can honour yet."""

    reason = ""

    def __init__(self, **_: Any) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnsupportedFeature(f"{type(self).__name__}: {self.reason}", param=type(self).__name__)


class SGLangEngineProcessorConfig(_Refused):
    """Refuse: there is no SGLang plugin."""

    reason = "no engine plugin mounts SGLang; use ProcessorConfig(engine=...) with one that `trunnion plugins list` has"


def stage_of(name: str, value: Any, cls: type[_StageConfig]) -> _StageConfig:
    """Return a stage's configuration given as bool, dict or object. Raises :class:`ConfigError` otherwise."""
    if isinstance(value, bool):
        return cls(enabled=value)
    if isinstance(value, cls):
        return value
    if isinstance(value, dict):
        try:
            return cls(**value)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}", param=name) from error
    raise ConfigError(f"{name} must be a bool, a dict or a {cls.__name__}, not {value!r}", param=name)
