"""Check what pydantic cannot: whether engines, stages, routers and hooks take their settings, and the models fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final

from ray.runtime_env import RuntimeEnv

from trunnion.adapter_setting import with_adapters, with_room
from trunnion.choice import AUTO
from trunnion.errors import ConfigError, PluginError, PluginNotInstalled, TrunnionError
from trunnion.plugin import EnginePlugin, RouterPlugin, StagePlugin
from trunnion.registry import Registry, get_registry

from .application import AppConfig, build_application, check_form
from .config import ModelConfig
from .elsewhere import ElsewhereRegistry
from .mirror.builders import build_from_serving_args
from .mirror.configs import LLMServingArgs
from .problems import Problem, find_problems, told, unknown_key
from .yaml_lines import Place

_BRINGS_CODE: Final = frozenset({
    "pip", "uv", "conda", "container", "image_uri", "py_modules", "working_dir", "py_executable",
})  # fmt: skip


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
    elsewhere = _brings_code(given)
    yield from _runtime_env(given.get("runtime_env"), (*place[:-1], "runtime_env"))
    if isinstance(config, LLMServingArgs):
        if not elsewhere and engines:
            yield from _built(lambda: build_from_serving_args(config), place)
        return
    registry = get_registry() if engines and not elsewhere else ElsewhereRegistry()
    found: list[Problem] = []
    for index, model in enumerate(config.models):
        found += _model(model, (*place, "models", index), registry, elsewhere=elsewhere)
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
    elsewhere = _brings_code(given)
    registry = get_registry() if engines and not elsewhere else ElsewhereRegistry()
    models = args.get("models") if isinstance(args, Mapping) else None
    for index, one in enumerate(models if isinstance(models, list) else ()):
        here = (*place, "models", index)
        problems, model = find_problems(ModelConfig, one, here)
        if not problems:
            yield from _model(model, here, registry, elsewhere=elsewhere)


def _brings_code(given: Mapping[str, Any]) -> bool:
    """Tell whether the application's runtime environment has plugins, perhaps, that are not installed here."""
    environment = given.get("runtime_env")
    return isinstance(environment, Mapping) and bool(_BRINGS_CODE.intersection(environment))


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
    """Yield what is wrong with the settings of a model's plugins."""
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


def check_import_path(given: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    """Yield that the module of an application of the user's own is nowhere, where it would be looked for here.

    Nothing is imported: that is done where the application is built.
    """
    path = given.get("import_path")
    environment = given.get("runtime_env")
    variables = environment.get("env_vars") if isinstance(environment, Mapping) else None
    if not isinstance(path, str) or _brings_code(given) or os.environ.get("RAY_ADDRESS"):
        return
    if isinstance(variables, Mapping) and "PYTHONPATH" in variables:
        return
    top = path.replace(":", ".").partition(".")[0]
    if top not in sys.builtin_module_names and PathFinder.find_spec(top, [str(Path.cwd()), *sys.path]) is None:
        message = (
            f"there is no module {top!r} here; start this where it lies, or give `runtime_env: {{working_dir: ...}}`"
        )
        yield Problem((*place, "import_path"), message)


def _runtime_env(environment: Any, place: Place) -> Iterator[Problem]:
    """Yield keys that Ray would ignore with a line in some log; plugins of Ray's may add keys of their own."""
    known = sorted(getattr(RuntimeEnv, "known_fields", ()))
    if isinstance(environment, Mapping) and known and not os.environ.get("RAY_RUNTIME_ENV_PLUGINS"):
        for key in environment:
            if key not in known:
                yield Problem((*place, key), unknown_key(key, known))
