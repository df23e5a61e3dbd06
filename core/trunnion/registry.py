"""Keep what was registered in this process, and build engines, stages and routers from their specs.

The registry is per process and never pickled: a worker discovers its own and checks versions.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from ._versions import series
from .adapter_setting import LoraSettings, with_adapters, with_room
from .choice import AUTO, choose_engine
from .engine import Engine
from .errors import (
    ConfigError,
    PluginBlocked,
    PluginConflict,
    PluginError,
    PluginFailed,
    PluginIncompatible,
    PluginNotFound,
    PluginNotInstalled,
    TrunnionError,
)
from .fetch import Source
from .hooks import HooksOrigin
from .hookspecs import ENTRY_POINT_GROUP
from .loader import PluginRecord, PluginState, load, normalize, policy_from_environment
from .plugin import EnginePlugin, HooksPlugin, Plugin, RouterPlugin, SourcePlugin, StagePlugin, load_factory
from .router import Router
from .settings import UNKNOWN, hint
from .spec import EngineSpec, PluginPolicy, Resources
from .stage import Stage, StageContext, StreamStage
from .suitability import Machine

logger = logging.getLogger("trunnion.registry")

_ERRORS: Final[dict[PluginState, type[PluginError]]] = {
    PluginState.BLOCKED: PluginBlocked,
    PluginState.CONFLICT: PluginConflict,
    PluginState.INCOMPATIBLE: PluginIncompatible,
    PluginState.FAILED: PluginFailed,
    PluginState.NOT_INSTALLED: PluginNotInstalled,
}
SAID: Final[dict[PluginState, str]] = {
    PluginState.BLOCKED: "is blocked",
    PluginState.CONFLICT: "is in conflict",
    PluginState.INCOMPATIBLE: "is incompatible",
    PluginState.FAILED: "failed to load",
    PluginState.NOT_INSTALLED: "is not installed",
}
"""What messages say of a plugin in each state that is not OK."""
P = TypeVar("P", EnginePlugin, StagePlugin, RouterPlugin, HooksPlugin, SourcePlugin)


class Registry:
    """Find plugins by kind and name. A broken plugin raises when *it* is asked for, and only then."""

    def __init__(
        self,
        policy: PluginPolicy | None = None,
        entry_points: tuple[importlib.metadata.EntryPoint, ...] | None = None,
    ) -> None:
        """Load the given entry points, or all those installed, under the given policy or the environment's."""
        self.policy = policy_from_environment() if policy is None else policy
        if entry_points is None:
            entry_points = tuple(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
        self._records = load(entry_points, self.policy)
        self._warn_of_names_that_match_nothing()

    def _warn_of_names_that_match_nothing(self) -> None:
        """Say so: a misspelt name in a policy would block or allow nothing."""
        known = {normalize(name) for record in self._records for name in (record.entry_point, record.distribution)}
        for verb, names in (("allow", self.policy.allow), ("block", self.policy.block)):
            for name in sorted(names):
                if normalize(name) not in known:
                    logger.warning("plugins to %s: %r is no entry point or distribution here", verb, name)

    def plugins(self) -> list[PluginRecord]:
        """Return every record, whatever its state, ordered by kind and name."""
        return list(self._records)

    def engines(self) -> list[EnginePlugin]:
        """Return the engines that can be used here."""
        return self._all(EnginePlugin)

    def stages(self) -> list[StagePlugin]:
        """Return the stages that can be used here."""
        return self._all(StagePlugin)

    def routers(self) -> list[RouterPlugin]:
        """Return the routers that can be used here."""
        return self._all(RouterPlugin)

    def hooks(self) -> list[HooksPlugin]:
        """Return the request hooks in the order they run: priority, then name."""
        return sorted(self._all(HooksPlugin), key=lambda hook: (hook.priority, hook.name))

    def _all(self, cls: type[P]) -> list[P]:
        return [r.plugin for r in self._records if r.state is PluginState.OK and isinstance(r.plugin, cls)]

    def engine(self, name: str) -> EnginePlugin:
        """Return an engine plugin. Raises the :class:`PluginError` of its state."""
        return self._get(EnginePlugin, "engine", name)

    def stage(self, name: str) -> StagePlugin:
        """Return a stage plugin. Raises the :class:`PluginError` of its state."""
        return self._get(StagePlugin, "stage", name)

    def router(self, name: str) -> RouterPlugin:
        """Return a router plugin. Raises the :class:`PluginError` of its state."""
        return self._get(RouterPlugin, "router", name)

    def source_for(self, scheme: str) -> SourcePlugin:
        """Return the source of a scheme such as "s3".

        Raises:
            PluginError: None is registered for it, several are, or it cannot be used here; the message says which.
        """
        records = [r for r in self._records if isinstance(r.plugin, SourcePlugin) and scheme in r.plugin.schemes]
        usable = [r for r in records if r.state is PluginState.OK]
        if len(usable) > 1:
            names = ", ".join(f"{r.name} of {r.distribution}" for r in usable)
            raise PluginConflict(f"several sources claim {scheme}://: {names}; block all but one")
        if usable or records:
            return self._get(SourcePlugin, "source", (usable or records)[0].name)
        sources = (r.plugin for r in self._records if isinstance(r.plugin, SourcePlugin))
        schemes = sorted({f"{scheme}://" for plugin in sources for scheme in plugin.schemes})
        broken = [f"{r.entry_point} ({r.state.value})" for r in self._records if not r.kind and r.state != "ok"]
        message = f"no source fetches {scheme}://; there are: {', '.join(schemes) or 'none'}"
        raise PluginNotFound(message + (f"; not loaded: {', '.join(broken)}" if broken else ""))

    def record(self, kind: str, name: str) -> PluginRecord | None:
        """Return the record of a plugin, or of an entry point of that name that gave nothing; None if unknown."""
        named = [r for r in self._records if r.kind == kind and r.name == name]
        broken = [r for r in self._records if not r.kind and r.state is not PluginState.OK]
        named += [r for r in broken if normalize(name) in (normalize(r.name), _short(r))]
        return named[0] if named else None

    def _get(self, cls: type[P], kind: str, name: str) -> P:
        record = self.record(kind, name)
        if record is None:
            raise PluginNotFound(self._unknown(kind, name), details={"kind": kind, "name": name})
        if record.state is not PluginState.OK or not isinstance(record.plugin, cls):
            where = f"{record.distribution} {record.version}".strip()
            message = f"{kind} {name!r} ({where}) {SAID[record.state]}: {record.reason}"
            details = {"kind": kind, "name": name, "state": record.state.value, "distribution": record.distribution}
            raise _ERRORS[record.state](message, details=details) from record.error
        return record.plugin

    def _unknown(self, kind: str, name: str) -> str:
        names = [r.name for r in self._records if r.kind == kind]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        message = f"no {kind} plugin is called {name!r}; {hint}there are: {', '.join(sorted(set(names))) or 'none'}"
        failed = (r for r in self._records if not r.kind and r.state is not PluginState.OK)
        broken = [f"{r.entry_point} ({r.state.value})" for r in failed]
        return message + (f"; not loaded: {', '.join(broken)} (see `trunnion plugins doctor`)" if broken else "")

    def distribution_of(self, plugin: Plugin) -> tuple[str, str]:
        """Return name and version of the distribution that registered a plugin."""
        for record in self._records:
            if record.plugin is plugin:
                return record.distribution, record.version
        return "", ""

    def engine_spec(
        self,
        engine: str,
        model: str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        adapters: Mapping[str, str] | None = None,
        lora: LoraSettings | None = None,
        batch: bool = False,
        needs: Iterable[str] = (),
        machine: Machine | None = None,
    ) -> EngineSpec:
        """Validate a configuration and return the spec that crosses to workers.

        Args:
            engine: The plugin's name, or "auto" for the one that suits best (:func:`trunnion.choose_engine`).
            model: Path or name of the model.
            config: The engine's settings.
            adapters: LoRA adapters, name to path, on top of those in ``config``.
            lora: Adapters that come and go while the engine runs; it is given room for them.
            machine: The hardware that "auto" chooses for; this machine's by default.
            batch: Start from what the plugin advises for batches (``EnginePlugin.batch_config``).
            needs: Features and protocols that "auto" chooses by as well, such as "embeds/1".

        Raises:
            ConfigError: A key is unknown or a value is wrong; ``param`` names it.
            PluginError: The engine cannot be used here.
        """
        if engine == AUTO:
            if lora is not None and lora.in_use:
                needs = (*needs, "hot_adapters/1")
            choice = choose_engine(model, config, adapters=adapters, needs=needs, machine=machine, registry=self)
            logger.info("engine %s", choice)
            engine = choice.engine
        plugin = self.engine(engine)
        if plugin.needs_model and not model:
            raise ConfigError(f"engine {engine!r} needs a model: give a path or a name", param="model")
        advised = plugin.batch_config if batch else {}
        settings = {**advised, **with_adapters(plugin, config, adapters)}
        if lora is not None:
            settings = with_room(plugin, settings, lora)
        valid = validate_config(plugin.config, settings, where=f"engine {engine!r}")
        return EngineSpec(
            engine=engine,
            model=model,
            config=valid.model_dump(mode="json", exclude_unset=True),
            plugin_version=self.distribution_of(plugin)[1],
        )

    def resources(self, spec: EngineSpec) -> Resources:
        """Return what one replica of the engine takes; pure and light."""
        plugin = self.engine(spec.engine)
        if plugin.resources is None:
            return Resources()
        return plugin.resources(validate_config(plugin.config, spec.config, where=f"engine {spec.engine!r}"))

    def divided(self, spec: EngineSpec, replicas: int) -> EngineSpec:
        """Return the spec of one of so many replicas of a job (``EnginePlugin.divide``); pure and light."""
        plugin = self.engine(spec.engine)
        if plugin.divide is None or replicas == 1:
            return spec
        where = f"engine {spec.engine!r}"
        changed = plugin.divide(validate_config(plugin.config, spec.config, where=where), replicas)
        valid = validate_config(plugin.config, {**spec.config, **changed}, where=where)
        return replace(spec, config=valid.model_dump(mode="json", exclude_unset=True))

    def build_engine(self, spec: EngineSpec) -> Engine:
        """Build the engine, importing what it needs. It is not started.

        Raises:
            PluginIncompatible: The spec was made by another major version (before 1.0: minor) of the plugin.
            PluginFailed: The engine's module cannot be imported, or its factory raised a foreign exception.
        """
        plugin = self.engine(spec.engine)
        here = self.distribution_of(plugin)[1]
        if spec.plugin_version and here and series(spec.plugin_version) != series(here):
            raise PluginIncompatible(
                f"engine {spec.engine!r}: the spec was made by plugin version {spec.plugin_version}, "
                f"but this process has {here}; install the same version on every node"
            )
        config = validate_config(plugin.config, spec.config, where=f"engine {spec.engine!r}")
        engine: Engine = _build("engine", plugin.name, plugin.factory, spec.model, config)
        return engine

    def build_stage(
        self, name: str, context: StageContext, config: Mapping[str, Any] | None = None
    ) -> Stage | StreamStage:
        """Build a stage for a started engine."""
        plugin = self.stage(name)
        valid = validate_config(plugin.config, config, where=f"stage {name!r}")
        stage: Stage | StreamStage = _build("stage", name, plugin.factory, context, valid)
        return stage

    def build_source(self, plugin: SourcePlugin, config: Mapping[str, Any] | None = None) -> Source:
        """Build a source of models."""
        valid = validate_config(plugin.config, config, where=f"source {plugin.name!r}")
        source: Source = _build("source", plugin.name, plugin.factory, valid)
        return source

    def build_router(self, name: str, config: Mapping[str, Any] | None = None) -> Router:
        """Build a router."""
        plugin = self.router(name)
        valid = validate_config(plugin.config, config, where=f"router {name!r}")
        router: Router = _build("router", name, plugin.factory, valid)
        return router

    def stages_of_hooks(self) -> list[str]:
        """Return the stages that the hooks in force bring along, each once."""
        return list(dict.fromkeys(name for hook in self.hooks() for name in hook.stages))

    def check_hooks(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Check the settings of hooks, by name, and that the stages the hooks in force rely on are there.

        Raises:
            ConfigError: A key is unknown or a value is wrong; ``param`` names it.
            PluginError: Hooks that are named, or a stage, cannot be used here.
        """
        for name in configs:
            self._get(HooksPlugin, "hooks", name)
        for hook in self.hooks():
            self._hooks_config(hook, configs)
            for stage in hook.stages:
                try:
                    self.stage(stage)
                except PluginError as error:
                    raise type(error)(f"hooks {hook.name!r} rely on a stage: {error}", details=error.details) from error

    @staticmethod
    def _hooks_config(hook: HooksPlugin, configs: Mapping[str, Mapping[str, Any]]) -> BaseModel:
        return validate_config(hook.config, configs.get(hook.name), where=f"hooks {hook.name!r}")

    def build_hooks(self, configs: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> list[Any]:
        """Build every hooks object with its settings, in the order they run.

        A policy that cannot be in force is warned about. Raises what :meth:`check_hooks` does.
        """
        for record in self._records:
            if record.kind == "hooks" and record.state not in (PluginState.OK, PluginState.BLOCKED):
                logger.warning(
                    "request hooks %r are not in force: %s: %s", record.name, record.state.value, record.reason
                )
        self.check_hooks(configs)
        return [_build("hooks", hook.name, hook.factory, self._hooks_config(hook, configs)) for hook in self.hooks()]

    def hooks_origins(self) -> list[HooksOrigin]:
        """Return where the hooks in force come from, in the order they run."""
        records = {id(record.plugin): record for record in self._records}
        found = [records[id(hook)] for hook in self.hooks()]
        return [
            HooksOrigin(name=r.name, distribution=f"{r.distribution} {r.version}".strip(), entry_point=r.entry_point)
            for r in found
        ]


def _short(record: PluginRecord) -> str:
    return normalize(record.distribution).removeprefix("trunnion-")


def _build(kind: str, name: str, path: str, *arguments: object) -> Any:
    """Import a factory and call it; what it raises, and is not ours, becomes PluginFailed."""
    details = {"kind": kind, "name": name}
    try:
        factory = load_factory(path)
    except TrunnionError:
        raise
    except Exception as error:
        message = f"{kind} {name!r} cannot be imported ({path}): {type(error).__name__}: {error}"
        raise PluginFailed(message, details=details) from error
    try:
        return factory(*arguments)
    except TrunnionError:
        raise
    except Exception as error:
        message = f"{kind} {name!r} cannot be built ({path}): {type(error).__name__}: {error}"
        raise PluginFailed(message, details=details) from error


def validate_config(model: type[BaseModel], config: Mapping[str, Any] | None, *, where: str) -> BaseModel:
    """Validate a configuration. Raises :class:`ConfigError` that names the key, with a suggestion."""
    try:
        return model.model_validate(dict(config or {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == UNKNOWN:
            said = hint(key, list(model.model_fields))
            raise ConfigError(f"{where} has no setting {key!r}; {said}", param=key) from error
        if not key:  # a rule about several settings
            raise ConfigError(f"{where}: {plain_message(first['msg'])}") from error
        raise ConfigError(f"{where}: setting {key!r}: {plain_message(first['msg'])}", param=key) from error


def plain_message(message: str) -> str:
    """Return what a validator said, without pydantic's word for the class of its exception."""
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


_lock = threading.RLock()
_registries: dict[PluginPolicy, Registry | None] = {}


def get_registry(policy: PluginPolicy | None = None) -> Registry:
    """Return this process's registry for a policy (the environment's if None), loading it once.

    Raises:
        PluginError: A plugin asked for it while it was being loaded itself.
    """
    wanted = policy_from_environment() if policy is None else policy
    with _lock:
        if wanted not in _registries:
            _registries[wanted] = None
            try:
                _registries[wanted] = Registry(wanted)
            finally:
                if _registries[wanted] is None:
                    del _registries[wanted]
        registry = _registries[wanted]
        if registry is None:
            raise PluginError("the registry is being loaded; a plugin may not ask for it while it is imported")
        return registry


def engine_spec(engine: str, model: str | None = None, config: Mapping[str, Any] | None = None) -> EngineSpec:
    """Validate through this process's registry; see :meth:`Registry.engine_spec`."""
    return get_registry().engine_spec(engine, model, config)
