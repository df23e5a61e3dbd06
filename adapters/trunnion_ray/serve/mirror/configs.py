"""Mirror the configuration classes of ``ray.serve.llm``, of both generations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trunnion.errors import ConfigError

from ..config import ModelConfig  # noqa: TID252
from .rules import refuse_set


class _Mirror(BaseModel):
    """Refuse unknown fields and, by their rules, those that make no sense here."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="after")
    def _refuse(self) -> Self:
        refuse_set(type(self).__name__, sorted(self.model_fields_set))
        return self

    @classmethod
    def parse_yaml(cls, text: str) -> Self:
        """Read YAML text."""
        return cls.model_validate(yaml.safe_load(text))

    @classmethod
    def from_file(cls, path: str) -> Self:
        """Read a YAML file."""
        return cls.parse_yaml(Path(path).read_text(encoding="utf-8"))


class CloudMirrorConfig(_Mirror):
    """Stand in for the mirror of weights in the cloud, which is refused: nothing is downloaded here."""

    bucket_uri: str | None = Field(default=None, description="Refused.")
    extra_files: list[Any] = Field(default_factory=list, description="Refused.")


class ModelLoadingConfig(_Mirror):
    """Name the model and where its weights are."""

    model_id: str = Field(min_length=1, description="Name that clients send as `model`.")
    model_source: str | CloudMirrorConfig | None = Field(
        default=None, description="Path or Hub name of the model; model_id if unset."
    )
    tokenizer_source: str | None = Field(default=None, description="Path or Hub name of the tokenizer.")

    @field_validator("model_source", mode="before")
    @classmethod
    def _refuse_mirror(cls, value: Any) -> Any:
        if isinstance(value, (dict, CloudMirrorConfig)):
            msg = "model_source: weights are not mirrored from the cloud; name a path that the nodes share"
            raise ConfigError(msg, param="model_source")
        return str(value) if isinstance(value, Path) else value


class LoraConfig(_Mirror):
    """Say where LoRA adapters are."""

    dynamic_lora_loading_path: str | None = Field(
        default=None, description="Local folder whose subfolders are adapters; each is named as its subfolder."
    )
    max_num_adapters_per_replica: int = Field(default=16, ge=1, description="Most adapters the folder may hold.")
    download_timeout_s: float | None = Field(default=None, description="Refused.")
    max_download_tries: int | None = Field(default=None, description="Refused.")

    @field_validator("dynamic_lora_loading_path")
    @classmethod
    def _local(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            msg = f"dynamic_lora_loading_path: {value} is not local; copy the adapters to a folder the nodes share"
            raise ConfigError(msg, param="dynamic_lora_loading_path")
        return value


class AcceleratorConfig(BaseModel):
    """Say what kind of hardware the engine runs on."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["cpu", "gpu"] = Field(description="cpu or gpu.")


class LLMConfig(_Mirror):
    """Describe one model in the words of Ray's LLM modules."""

    runtime_env: dict[str, Any] | None = Field(default=None, description="Runtime environment of the replica.")
    model_loading_config: ModelLoadingConfig = Field(description="Name and source of the model.")
    llm_engine: str = Field(default="vLLM", description="vLLM, or the name of another engine plugin.")
    engine_kwargs: dict[str, Any] = Field(default_factory=dict, description="The engine's configuration.")
    accelerator_type: str | None = Field(default=None, description="None or CPU, or the name of a GPU as Ray knows it.")
    accelerator_config: AcceleratorConfig | None = Field(default=None, description="Kind of hardware.")
    placement_group_config: dict[str, Any] | None = Field(
        default=None, description="Bundles: `bundle_per_worker` or `bundles`, and `strategy`."
    )
    lora_config: LoraConfig | None = Field(default=None, description="LoRA adapters.")
    deployment_config: dict[str, Any] = Field(default_factory=dict, description="Options of the Serve deployment.")
    server_cls: Any = Field(default=None, description="Refused.")
    experimental_configs: dict[str, Any] = Field(default_factory=dict, description="Only num_ingress_replicas.")
    log_engine_metrics: bool | None = Field(default=None, description="False, or left out.")
    callback_config: Any = Field(default=None, description="Refused.")

    @field_validator("accelerator_config", mode="before")
    @classmethod
    def _no_tpu(cls, value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        if kind == "tpu":
            raise ConfigError("accelerator_config: no engine plugin runs on TPUs", param="accelerator_config")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        from .translate import check

        check(self)
        return self

    @property
    def model_id(self) -> str:
        """Return the served name."""
        return self.model_loading_config.model_id

    def to_model_config(self) -> ModelConfig:
        """Return the engine-neutral configuration of the same model, deployment options left out."""
        from .translate import to_model_config

        return to_model_config(self)

    def get_serve_options(self, *, name_prefix: str = "") -> dict[str, Any]:
        """Return the options of the model's Serve deployment, its name among them."""
        from .translate import serve_options

        return serve_options(self, name_prefix=name_prefix)


class LLMServingArgs(_Mirror):
    """Describe an application of several models."""

    llm_configs: list[LLMConfig] = Field(
        min_length=1, description="Configurations: values, mappings, YAML text, or paths of YAML files and folders."
    )
    ingress_cls_config: Any = Field(default=None, description="Refused.")
    ingress_deployment_config: dict[str, Any] = Field(
        default_factory=dict, description="Options of the gateway's deployment."
    )

    @field_validator("llm_configs", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return [config for entry in value for config in _read_entry(entry)] if isinstance(value, list) else value

    def parse_args(self) -> Self:
        """Return this value: everything was read when it was made."""
        return self


def _read_entry(entry: Any) -> list[Any]:
    """Return the configurations that one entry stands for."""
    if not isinstance(entry, (str, Path)):
        return [entry]
    text = str(entry)
    if "\n" not in text:
        path = Path(text)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
            return [LLMConfig.from_file(str(file)) for file in files]
        if path.is_file():
            return [LLMConfig.from_file(text)]
    data = yaml.safe_load(text)
    if not isinstance(data, dict):
        msg = f"llm_configs: {text!r} is neither a YAML file, a folder of them, nor YAML text of a configuration"
        raise ConfigError(msg, param="llm_configs")
    return [LLMConfig.model_validate(data)]
