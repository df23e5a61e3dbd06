"""Put LoRA adapters into the form an engine's own ``adapters`` setting has."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError
from .plugin import EnginePlugin


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
