"""Define specs: all that crosses a process boundary. A worker discovers, checks the version and builds.

Specs are JSON throughout. Secrets travel as the *name* of an environment variable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from .errors import ConfigError
from .media_policy import MediaPolicy

PlacementStrategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Ask for resources on one node: logical CPUs, GPUs, bytes of memory, an accelerator type, custom resources."""

    cpu: float = 1.0
    gpu: float = 0.0
    memory: int | None = None
    accelerator_type: str | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    def to_ray(self) -> dict[str, float]:
        """Return Ray's mapping form, leaving zeros out."""
        bundle: dict[str, float] = {"CPU": self.cpu, "GPU": self.gpu, **self.custom}
        if self.memory is not None:
            bundle["memory"] = float(self.memory)
        if self.accelerator_type is not None:
            bundle[f"accelerator_type:{self.accelerator_type}"] = 0.001
        return {name: amount for name, amount in bundle.items() if amount}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Say what one replica takes.

    ``workers="engine"``: the engine starts its own processes, inside the one bundle. ``workers="ray"``: the engine
    places Ray actors, one bundle each, in the placement group it runs in.
    """

    bundles: tuple[Bundle, ...] = (Bundle(),)
    strategy: PlacementStrategy = "PACK"
    workers: Literal["engine", "ray"] = "engine"


def _plain(value: Any, where: str) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        msg = f"{where} must be made of JSON values: {error}"
        raise ConfigError(msg, param=where) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Name an engine, its plugin's version, the model and the validated JSON config.

    Make one with :func:`trunnion.engine_spec`, which validates ``config`` through the plugin.
    """

    engine: str
    model: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    plugin_version: str = ""

    def __post_init__(self) -> None:
        """Take a plain JSON copy of the config."""
        object.__setattr__(self, "config", _plain(dict(self.config), "config"))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {
            "engine": self.engine,
            "model": self.model,
            "config": dict(self.config),
            "plugin_version": self.plugin_version,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` returned. Raises :class:`ConfigError` for keys that no spec has."""
        unknown = sorted(set(data) - set(cls.__dataclass_fields__))
        if unknown or "engine" not in data:
            what = f"an unknown key {unknown[0]!r}" if unknown else "no engine"
            raise ConfigError(f"the engine spec has {what}; write it with EngineSpec.to_json")
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """Name a stage and its config; ``position`` places a stage of the user's own.

    Positions: "before:NAME" and "after:NAME" of another stage of the same shape, "first", "last", or "" for where the
    planner puts it: in the chain by what it consumes and produces; right before the engine if it keeps the kind; by
    its ``order`` if it is a stream stage.
    """

    stage: str
    config: Mapping[str, Any] = field(default_factory=dict)
    position: str = ""

    def __post_init__(self) -> None:
        """Take a plain JSON copy of the config."""
        object.__setattr__(self, "config", _plain(dict(self.config), f"stages.{self.stage}.config"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginPolicy:
    """Block or allow plugins by entry-point or distribution name; an empty ``allow`` allows all."""

    allow: frozenset[str] = frozenset()
    block: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """Describe a whole pipeline: engine, stages that were configured or inserted, hooks, plugin policy, media policy.

    ``hooks`` are the settings of request hooks, by name. Hooks that are installed are in force whether named or not;
    ``policy`` blocks them. It is decided on the driver and shipped; None takes the worker's own environment.
    ``media`` limits the media of requests and says from which hosts they may be fetched: by default from none.
    """

    engine: EngineSpec
    stages: tuple[StageSpec, ...] = ()
    policy: PluginPolicy | None = None
    hooks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    media: MediaPolicy = field(default_factory=MediaPolicy)

    def __post_init__(self) -> None:
        """Take a plain JSON copy of the hooks' settings."""
        plain = {name: _plain(dict(config), f"hooks.{name}") for name, config in self.hooks.items()}
        object.__setattr__(self, "hooks", plain)
