"""Say what the models of a config file will take of a cluster, before there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trunnion.choice import AUTO
from trunnion.errors import ConfigError, TrunnionError
from trunnion.registry import Registry, get_registry

from .config_file import FileApplication, ServeFile
from .options import deployment_name, deployment_options, pipeline_spec

_TYPE: Final = "accelerator_type:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Say what one model takes.

    Attributes:
        application: The application it belongs to.
        model: Its name.
        bundles: What each replica takes, in Ray's resources, memory in bytes; each bundle lies on one node.
        strategy: How the bundles of one replica are placed.
        accelerator_type: The kind of GPU it needs, as Ray names it; None for any.
        minimum: Replicas at least.
        initial: Replicas at first.
        maximum: Replicas at most.
    """

    application: str
    model: str
    bundles: tuple[Mapping[str, float], ...]
    strategy: str
    accelerator_type: str | None
    minimum: int
    initial: int
    maximum: int


def planned(file: ServeFile, registry: Registry | None = None) -> list[Planned]:
    """Return what each model of a file takes; of programs of the user's own nothing is known.

    Args:
        file: The file.
        registry: Where engines are looked up; this process's by default.

    Raises:
        ConfigError: An engine is left to be chosen, which needs the machines.
        PluginError: An engine cannot be used here.
    """
    given = {app.get("name", "default"): app.get("deployments") or [] for app in file.data["applications"]}
    found = []
    for app in file.applications:
        changes = {one["name"]: one for one in given[app.name]}
        found += [
            _planned(app.name, model, {**options, **changes.get(name, {})})
            for name, model, options in _deployments(file, app, registry or get_registry())
        ]
    return found


def cpus_at_start(file: ServeFile) -> float:
    """Return the CPUs that all models take at first, as far as that is known before Ray runs."""
    try:
        plan = planned(file)
    except TrunnionError:  # an engine to be chosen there, or a plugin that a runtime environment brings
        return 0.0
    return sum(bundle.get("CPU", 0.0) * one.initial for one in plan for bundle in one.bundles)


def _deployments(
    file: ServeFile, app: FileApplication, registry: Registry
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name of each model's deployment, the model's, and the deployment's options."""
    for index, model in enumerate(app.config.models if app.config is not None else ()):
        if model.engine == AUTO:
            place = f"applications[{_index(file, app)}].args.models[{index}].engine"
            message = f"{place}: name the engine: which one suits cannot be told without the machines it will run on"
            raise ConfigError(message, param=place)
        spec = pipeline_spec(model, registry)
        yield deployment_name(model.name), model.name, deployment_options(model, spec, registry)
    for mirrored in app.mirrored.llm_configs if app.mirrored is not None else ():
        options = mirrored.get_serve_options(name_prefix="LLMServer:")
        yield options["name"], mirrored.model_id, options


def _index(file: ServeFile, app: FileApplication) -> int:
    return file.applications.index(app)


def _planned(application: str, model: str, options: Mapping[str, Any]) -> Planned:
    bundles, strategy = _bundles(options)
    kinds = {name.removeprefix(_TYPE) for bundle in bundles for name in bundle if name.startswith(_TYPE)}
    kind = (options.get("ray_actor_options") or {}).get("accelerator_type") or (min(kinds) if kinds else None)
    scale = options.get("autoscaling_config") or {}
    scale = scale if isinstance(scale, Mapping) else scale.model_dump()
    count = options.get("num_replicas")
    count = count if isinstance(count, int) else 1
    minimum, maximum = (scale.get("min_replicas", 1), scale.get("max_replicas", 1)) if scale else (count, count)
    initial = scale.get("initial_replicas")
    return Planned(
        application=application,
        model=model,
        bundles=tuple({k: v for k, v in one.items() if not k.startswith(_TYPE)} for one in bundles),
        strategy=strategy,
        accelerator_type=kind,
        minimum=minimum,
        initial=minimum if initial is None else initial,
        maximum=maximum,
    )


def _bundles(options: Mapping[str, Any]) -> tuple[list[dict[str, float]], str]:
    group = options.get("placement_group_bundles")
    if group:
        return [dict(bundle) for bundle in group], str(options.get("placement_group_strategy") or "PACK")
    actor = options.get("ray_actor_options") or {}
    asked = {
        "CPU": actor.get("num_cpus", 1.0),
        "GPU": actor.get("num_gpus", 0.0),
        "memory": actor.get("memory", 0.0),
        **(actor.get("resources") or {}),
    }
    return [{name: float(amount) for name, amount in asked.items() if amount}], "STRICT_PACK"
