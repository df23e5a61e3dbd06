"""Say which LoRA adapters are served, and put them into the form of an engine's own settings."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from .errors import ConfigError
from .plugin import EnginePlugin, PluginConfig

DEFAULT_MAX_LORAS: Final = 4
"""Adapters that an engine holds at once where folders are given and no number."""


class LoraSettings(PluginConfig):
    """Say which LoRA adapters may be loaded while the engine runs, and how many it holds at once."""

    folders: tuple[str, ...] = Field(
        default=(),
        description="Folders, or URIs that fsspec opens, whose subfolders are adapters, each named as its subfolder "
        "and loaded when first asked for. Adapters loaded by request must lie in them.",
    )
    max_loras: int | None = Field(
        default=None,
        ge=1,
        description="Adapters the engine holds at once; the one not used for longest makes room. Also given to the "
        "engine, where it has a setting of that name. Unset with folders: 4.",
    )
    scan_seconds: float = Field(default=5.0, gt=0, description="Seconds between looks for new adapters in the folders.")

    @property
    def slots(self) -> int:
        """Return how many adapters the engine holds at once."""
        return self.max_loras or DEFAULT_MAX_LORAS

    @property
    def in_use(self) -> bool:
        """Tell whether adapters come and go while the engine runs."""
        return bool(self.folders) or self.max_loras is not None


def with_adapters(
    plugin: EnginePlugin, config: Mapping[str, Any] | None, adapters: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the settings with adapters added: name to path, or names alone, whichever the engine takes.

    Raises:
        ConfigError: The engine loads no adapters, one is given twice, or one lacks its path.
    """
    settings = dict(config or {})
    if not adapters:
        return settings
    field = plugin.config.model_fields.get("adapters")
    if field is None:
        raise ConfigError(f"engine {plugin.name!r} loads no adapters; leave them out", param="adapters")
    given = settings.get("adapters") or {}
    if twice := sorted(set(given) & set(adapters)):
        message = f"adapter {twice[0]!r} is given twice, on its own and in the engine's setting; keep one"
        raise ConfigError(message, param="adapters")
    origin = typing.get_origin(field.annotation) or field.annotation
    if not (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {**settings, "adapters": [*given, *adapters]}
    for name, path in adapters.items():
        if not path:
            message = f"adapter {name!r} has no path, and engine {plugin.name!r} loads adapters from paths"
            raise ConfigError(message, param=f"adapters.{name}")
    return {**settings, "adapters": {**given, **adapters}}


def with_room(plugin: EnginePlugin, config: Mapping[str, Any], lora: LoraSettings) -> dict[str, Any]:
    """Return an engine's settings with room for the adapters that it will hold, where it has a setting for that.

    Raises:
        ConfigError: The engine loads no adapters.
    """
    if not lora.in_use:
        return dict(config)
    if "adapters" not in plugin.config.model_fields:
        raise ConfigError(f"engine {plugin.name!r} loads no adapters; leave folders and max_loras out", param="lora")
    if "max_loras" not in plugin.config.model_fields or "max_loras" in config:
        return dict(config)
    return {**config, "max_loras": lora.slots}


def lazily(adapters: Mapping[str, str], lora: LoraSettings) -> tuple[dict[str, str], dict[str, str]]:
    """Part declared adapters into those that the engine starts with, and those loaded when first asked for.

    All are loaded at start where the engine may hold all of them at once.
    """
    if not lora.in_use or len(adapters) <= lora.slots:
        return dict(adapters), {}
    return {}, dict(adapters)
