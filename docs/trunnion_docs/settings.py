"""Describe every setting there is, from the pydantic models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import trunnion
from trunnion.media_policy import MediaPolicy
from trunnion_batch.job_file import JobFile, JobModel
from trunnion_batch.recovery import Recovery
from trunnion_http import BatchSettings, HTTPSettings
from trunnion_ray import data, serve

_OURS: Final = "trunnion"
_PARTS: Final[dict[str, tuple[type[BaseModel], ...]]] = {
    "A batch": (data.ProcessorConfig, data.ModelConfig, Recovery, JobFile, JobModel),
    "A served model": (
        serve.ModelConfig,
        serve.Autoscaling,
        serve.RouterConfig,
        serve.StageConfig,
        serve.AppConfig,
        serve.GatewayConfig,
        HTTPSettings,
        BatchSettings,
    ),
    "Media": (MediaPolicy,),
}
_KINDS: Final = {
    "engine": "Engines",
    "stage": "Stages",
    "router": "Routers",
    "hooks": "Request hooks",
    "source": "Sources",
}

_BOUNDS: Final = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "its length at least"}


def models() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Yield every model of settings: its part of the page, its heading, the model."""
    for part, classes in _PARTS.items():
        for cls in classes:
            yield part, cls.__name__, cls
    for record in trunnion.Registry(trunnion.PluginPolicy()).plugins():
        if record.distribution == _OURS and record.plugin is not None:
            yield _KINDS[record.kind], record.name, record.plugin.config


def settings() -> str:
    """Return a section for each model of settings."""
    lines: list[str] = []
    last = ""
    for part, heading, model in models():
        if part != last:
            lines += ["", f"## {part}", ""]
            last = part
        lines += ["", f"### {heading}", ""]
        if part not in _PARTS and not model.model_fields:
            lines.append("It has no settings.")
            continue
        first = (model.__doc__ or "").split("\n\n")[0]
        lines += [_code(" ".join(first.split())), "", *table(model)]
    return "\n".join(lines)


def table(model: type[BaseModel]) -> list[str]:
    """Return the rows of a table of a model's fields."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", f"`{_type(field)}`", _default(field), _code(field.description or "") + _bounds(field))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return rows


def _type(field: FieldInfo) -> str:
    kind = field.annotation
    text = kind.__name__ if isinstance(kind, type) and not getattr(kind, "__args__", ()) else str(kind)
    for prefix in ("typing.", "collections.abc.", "NoneType", "trunnion.spec.", "trunnion.media_policy.",
                   "trunnion_ray.serve.config.", "trunnion_ray.data.config.", "trunnion_http.settings."):  # fmt: skip
        text = text.replace(prefix, "None" if prefix == "NoneType" else "")
    return text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "its defaults"
    if value in ({}, (), [], frozenset()):
        return "empty"
    try:
        return f"`{json.dumps(value)}`" if value is not None else "`None`"
    except TypeError:
        return f"`{value!r}`"


def _bounds(field: FieldInfo) -> str:
    """Say what values may be, where it is more than the type says."""
    said = []
    for constraint in field.metadata:
        said += [f"{words} {getattr(constraint, name)}" for name, words in _BOUNDS.items() if hasattr(constraint, name)]
    return f" ({', '.join(said)})" if said else ""


def _code(text: str) -> str:
    return text.replace("``", "`")
