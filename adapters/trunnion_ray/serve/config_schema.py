"""Publish the JSON Schema of config files, for editors and for whoever writes such files by program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import ray
from pydantic import BaseModel
from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from trunnion.plugin import EnginePlugin

from .application import AppConfig
from .import_check import BUILDER
from .mirror.configs import LLMServingArgs

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REF: Final = "#/$defs/{model}"


def config_schema(engines: Iterable[EnginePlugin] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a whole config file: Ray Serve's part as this Ray has it, and ours.

    Ray ignores keys that it does not know; the schema refuses them, as ``trunnion serve`` does.

    Args:
        engines: Engines whose settings are described as well, under the models that name them.
    """
    schema = _made(ServeDeploySchema)
    definitions: dict[str, Any] = schema.pop("$defs")
    for name, field in DeploymentSchema.model_fields.items():
        if type(field.default).__name__ == "DEFAULT":  # Ray's mark for "as the code has it", no value of the setting
            definitions["DeploymentSchema"]["properties"][name].pop("default", None)
    ours = _made(AppConfig)
    for name, definition in {**ours.pop("$defs"), "AppConfig": ours}.items():
        definitions[f"Trunnion.{name}" if name in definitions else name] = definition
    mirrored = _made(LLMServingArgs)
    entries = mirrored["properties"]["llm_configs"]  # texts: YAML, or files that hold it
    entries["items"] = {"anyOf": [entries["items"], {"type": "string"}]}
    for name, definition in {**mirrored.pop("$defs"), "LLMServingArgs": mirrored}.items():
        definitions.setdefault(name, definition)
    definitions["ServeApplicationSchema"]["allOf"] = [
        {
            "if": {"properties": {"import_path": {"const": BUILDER}}, "required": ["import_path"]},
            "then": {
                "properties": {
                    "args": {
                        "if": {"required": ["llm_configs"]},
                        "then": {"$ref": _REF.format(model="LLMServingArgs")},
                        "else": {"$ref": _REF.format(model="AppConfig")},
                    }
                },
                "required": ["args"],
            },
        }
    ]
    _describe_engines(definitions, engines)
    return {
        "$schema": _DIALECT,
        "$comment": f"Made by `trunnion serve --schema` with Ray {ray.__version__}.",
        **schema,
        "title": "A config file of Ray Serve with models of Trunnion",
        "description": "What `trunnion serve FILE`, `serve deploy FILE` and `trunnion kuberay FILE` take.",
        "$defs": dict(sorted(definitions.items())),
    }


def _describe_engines(definitions: dict[str, Any], engines: Iterable[EnginePlugin]) -> None:
    rules = []
    for plugin in engines:
        settings = _made(plugin.config)
        inner = settings.pop("$defs", {})
        prefix = f"{plugin.name}."
        definitions |= {prefix + name: _renamed(definition, prefix) for name, definition in inner.items()}
        definitions[prefix + "config"] = _renamed(settings, prefix)
        rules.append(
            {
                "if": {"properties": {"engine": {"const": plugin.name}}, "required": ["engine"]},
                "then": {"properties": {"config": {"$ref": _REF.format(model=prefix + "config")}}},
            }
        )
    if rules:
        definitions["ModelConfig"]["allOf"] = rules


def _made(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema, refusing what it does not name and without titles, which only repeat names."""
    made: dict[str, Any] = _strict(model.model_json_schema())
    return made


def _strict(part: Any) -> Any:
    if isinstance(part, list):
        return [_strict(one) for one in part]
    if not isinstance(part, dict):
        return part
    made: dict[str, Any] = {}
    for key, value in part.items():
        if key in ("properties", "$defs") and isinstance(value, dict):
            made[key] = {name: _strict(one) for name, one in value.items()}
        elif key in ("default", "const", "enum", "examples"):
            made[key] = value
        elif key != "title" or not isinstance(value, str):
            made[key] = _strict(value)
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def _renamed(part: Any, prefix: str) -> Any:
    """Return a schema whose references lead to definitions under a prefix."""
    if isinstance(part, list):
        return [_renamed(one, prefix) for one in part]
    if not isinstance(part, dict):
        return part
    start = _REF.format(model="")
    return {
        key: start + prefix + value.removeprefix(start) if key == "$ref" else _renamed(value, prefix)
        for key, value in part.items()
    }
