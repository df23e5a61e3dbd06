"""Check what pydantic cannot: whether engines, stages, routers and hooks take their settings, and the models fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ray.runtime_env import RuntimeEnv
from ray.serve.schema import RayActorOptionsSchema

from trunnion.adapter_setting import with_adapters, with_room
from trunnion.choice import AUTO
from trunnion.errors import ConfigError, PluginError, PluginNotInstalled, TrunnionError
from trunnion.plugin import EnginePlugin, RouterPlugin, StagePlugin
from trunnion.registry import Registry, get_registry
from trunnion.settings import unknown_setting

from .application import AppConfig, build_application, check_form
from .config import ModelConfig
from .elsewhere import ElsewhereRegistry
from .import_check import brings_code
from .mirror.builders import build_from_serving_args
from .mirror.configs import LLMServingArgs
from .problems import Problem, find_problems, told
from .yaml_lines import Place


def check_application(
    config: AppConfig | LLMServingArgs, given: Mapping[str, Any], place: Place, *, engines: bool = True
) -> Iterator[Problem]:
    """Yield what is wrong with an application whose settings have the right form.

    Args:
        config: Its ``args``.
        given: The application as the file has it.
        place: Where its ``args`` stand.
        engines: Whether what engines need must be found on this machine. A runtime environment that brings code
            may bring plugins as well, so what is not found is no problem then either.
    """
    elsewhere = brings_code(given)
    yield from _runtime_env(given.get("runtime_env"), (*place[:-1], "runtime_env"))
    if isinstance(config, LLMServingArgs):
        if not elsewhere and engines:
            yield from _built(lambda: build_from_serving_args(config), place)
        return
    registry = get_registry() if engines and not elsewhere else ElsewhereRegistry()
    found: list[Problem] = []
    for index, model in enumerate(config.models):
        found += _model(model, (*place, "models", index), registry, elsewhere=elsewhere)
    found += _actor_options("the gateway", config.gateway.ray_actor_options, (*place, "gateway"))
    if engines:
        found += _keys(config, given, (*place, "http"))
    yield from found
    if not found:
        whole = engines and not elsewhere and not _chosen_there(config)
        yield from _built(lambda: build_application(config) if whole else check_form(config), place)


def check_models(args: Any, given: Mapping[str, Any], place: Place, *, engines: bool = True) -> Iterator[Problem]:
    """Yield what is wrong with the engines of those models that have the right form, where others have not.

    The arguments are those of :func:`check_application`, ``args`` being the settings as the file has them.
    """
    elsewhere = brings_code(given)
    registry = get_registry() if engines and not elsewhere else ElsewhereRegistry()
    models = args.get("models") if isinstance(args, Mapping) else None
    for index, one in enumerate(models if isinstance(models, list) else ()):
        here = (*place, "models", index)
        problems, model = find_problems(ModelConfig, one, here)
        if not problems:
            yield from _model(model, here, registry, elsewhere=elsewhere)


def _chosen_there(config: AppConfig) -> bool:
    """Tell whether an engine is left to be chosen for the machines of a cluster that is not this one."""
    return bool(os.environ.get("RAY_ADDRESS")) and any(model.engine == AUTO for model in config.models)


def _keys(config: AppConfig, given: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    """Yield variables that should hold keys and are not set, where replicas get this process's environment."""
    environment = given.get("runtime_env")
    variables = environment.get("env_vars") if isinstance(environment, Mapping) else None
    known = {*os.environ, *(variables or {}), *(name for model in config.models for name in model.env_vars)}
    for setting in ("api_keys_env", "admin_keys_env"):
        name = getattr(config.http, setting)
        if name is not None and name not in known and not os.environ.get("RAY_ADDRESS"):
            yield Problem((*place, setting), f"the environment variable {name} is not set; it holds the keys")


def _model(model: ModelConfig, place: Place, registry: Registry, *, elsewhere: bool) -> Iterator[Problem]:
    """Yield what is wrong with the settings of a model's plugins, and of its replicas' actors."""
    yield from _actor_options(f"model {model.name!r}", model.ray_actor_options, place)
    if model.engine != AUTO:
        plugin = _plugin(registry, "engine", model.engine, (*place, "engine"), elsewhere=elsewhere)
        if isinstance(plugin, Problem):
            yield plugin
        elif isinstance(plugin, EnginePlugin):
            yield from _engine(model, plugin, place)
    for index, stage in enumerate(model.stages):
        here = (*place, "stages", index)
        yield from _named(registry, "stage", stage.stage, stage.config, (*here, "stage"), elsewhere=elsewhere)
    if model.router is not None:
        here = (*place, "router", "router")
        yield from _named(registry, "router", model.router.router, model.router.config, here, elsewhere=elsewhere)
    if not elsewhere:
        for name, settings in model.hooks.items():
            try:
                registry.check_hooks({name: settings})
            except TrunnionError as error:
                yield Problem((*place, "hooks", name), error.message)


def _actor_options(whose: str, options: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    """Yield options of actors that Serve does not know, or not with this value; environments it checks itself."""
    known = {**options} | ({"runtime_env": {}} if "runtime_env" in options else {})
    given = {name: value for name, value in known.items() if value is not None}
    for problem in find_problems(RayActorOptionsSchema, given, (*place, "ray_actor_options"))[0]:
        yield Problem(problem.place, f"{whose}: {problem.message}")


def _engine(model: ModelConfig, plugin: EnginePlugin, place: Place) -> Iterator[Problem]:
    try:
        settings = with_room(plugin, with_adapters(plugin, model.config, model.adapters), model.lora)
    except ConfigError as error:
        yield told(error, ModelConfig, place)
        return
    if plugin.needs_model and not model.model:
        yield Problem((*place, "model"), f"engine {plugin.name!r} needs a model: give a path or a name")
    yield from find_problems(plugin.config, settings, (*place, "config"))[0]


def _named(
    registry: Registry, kind: str, name: str, settings: Mapping[str, Any], place: Place, *, elsewhere: bool
) -> Iterator[Problem]:
    plugin = _plugin(registry, kind, name, place, elsewhere=elsewhere)
    if isinstance(plugin, Problem):
        yield plugin
    elif plugin is not None:
        yield from find_problems(plugin.config, settings, (*place[:-1], "config"))[0]


def _plugin(
    registry: Registry, kind: str, name: str, place: Place, *, elsewhere: bool
) -> EnginePlugin | StagePlugin | RouterPlugin | Problem | None:
    """Return the plugin, what is wrong with it, or None where the place it will run in may have it."""
    try:
        if kind == "engine":
            return registry.engine(name)
        return registry.stage(name) if kind == "stage" else registry.router(name)
    except PluginError as error:
        if elsewhere:
            return None
        hint = ""
        if isinstance(error, PluginNotInstalled) and os.environ.get("RAY_ADDRESS"):
            hint = " (it is needed here as well, where the deployment is described)"
        return Problem(place, error.message + hint)


def _built(build: Any, place: Place) -> Iterator[Problem]:
    """Build the application as the cluster will, for what its parts do not tell."""
    try:
        build()
    except TrunnionError as error:
        yield told(error, AppConfig, place)
    except (TypeError, ValueError) as error:  # options that Ray refuses
        yield Problem(place, str(error))


def _runtime_env(environment: Any, place: Place) -> Iterator[Problem]:
    """Yield keys that Ray would ignore with a line in some log; plugins of Ray's may add keys of their own."""
    known = sorted(getattr(RuntimeEnv, "known_fields", ()))
    if isinstance(environment, Mapping) and known and not os.environ.get("RAY_RUNTIME_ENV_PLUGINS"):
        for key in environment:
            if key not in known:
                yield Problem((*place, key), unknown_setting(key, known))
