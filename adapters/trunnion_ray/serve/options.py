"""Turn a model's configuration into what Ray Serve deploys: the spec that crosses, and the deployment's options."""

from __future__ import annotations

from typing import Any

from trunnion.adapter_setting import lazily
from trunnion.registry import Registry, get_registry
from trunnion.spec import Bundle, PipelineSpec, StageSpec
from trunnion_ray.machine import cluster

from .config import ModelConfig


def pipeline_spec(config: ModelConfig, registry: Registry | None = None) -> PipelineSpec:
    """Validate the engine's configuration and return the spec for the replicas, plugin policy included.

    Raises:
        ConfigError: The engine refuses its configuration or adapters, or hooks refuse theirs.
        PluginError: The engine, or hooks that are named, cannot be used here.
    """
    registry = registry or get_registry()
    registry.check_hooks(config.hooks)
    return PipelineSpec(
        engine=registry.engine_spec(
            config.engine,
            config.model,
            config.config,
            adapters=lazily(config.adapters, config.lora)[0],
            lora=config.lora,
            machine=cluster(),
        ),
        stages=tuple(StageSpec(stage=s.stage, config=s.config, position=s.position) for s in config.stages),
        policy=registry.policy,
        hooks=config.hooks,
        media=config.media,
    )


def adapter_names(spec: PipelineSpec) -> tuple[str, ...]:
    """Return the adapters that the engine will hold once it has started."""
    return tuple(spec.engine.config.get("adapters") or ())


def deployment_options(config: ModelConfig, spec: PipelineSpec, registry: Registry | None = None) -> dict[str, Any]:
    """Return the options of the model's deployment, its name left out."""
    options: dict[str, Any] = {
        "max_ongoing_requests": config.max_ongoing_requests,
        "max_queued_requests": config.max_queued_requests,
        "health_check_period_s": config.health_check_period_s,
        "health_check_timeout_s": config.health_check_timeout_s,
        "graceful_shutdown_timeout_s": config.graceful_shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": config.graceful_shutdown_wait_loop_s,
        "max_constructor_retry_count": config.max_constructor_retry_count,
        "logging_config": dict(config.logging),
    }
    if config.autoscaling is not None:
        options["autoscaling_config"] = config.autoscaling.to_ray()
    else:
        options["num_replicas"] = config.num_replicas or 1
    return {**options, **placement(config, spec, registry)}


def placement(config: ModelConfig, spec: PipelineSpec, registry: Registry | None = None) -> dict[str, Any]:
    """Return ``ray_actor_options`` and, where a replica takes several bundles, its placement group."""
    resources = (registry or get_registry()).resources(spec.engine)
    bundles = config.placement_group_bundles
    options: dict[str, Any] = {}
    if bundles is not None or len(resources.bundles) > 1 or resources.workers == "ray":
        group = [dict(b) for b in bundles] if bundles is not None else [b.to_ray() for b in resources.bundles]
        options["placement_group_bundles"] = group
        options["placement_group_strategy"] = config.placement_group_strategy or resources.strategy
        # The replica's own actor sits in the first bundle; GPUs there are the workers' to take.
        own = resources.workers == "engine"
        actor: dict[str, Any] = {"num_cpus": group[0].get("CPU", 0.0)}
        if own and group[0].get("GPU"):
            actor["num_gpus"] = group[0]["GPU"]
    else:
        actor = _actor_options(resources.bundles[0])
    actor |= config.ray_actor_options
    if config.env_vars:
        environment = dict(actor.get("runtime_env") or {})
        environment["env_vars"] = {**environment.get("env_vars", {}), **config.env_vars}
        actor["runtime_env"] = environment
    options["ray_actor_options"] = actor
    return options


def _actor_options(bundle: Bundle) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": bundle.cpu}
    if bundle.gpu:
        options["num_gpus"] = bundle.gpu
    if bundle.memory is not None:
        options["memory"] = bundle.memory
    if bundle.accelerator_type is not None:
        options["accelerator_type"] = bundle.accelerator_type
    if bundle.custom:
        options["resources"] = dict(bundle.custom)
    return options


def deployment_name(name: str) -> str:
    """Return a served name as Ray Serve accepts it for a deployment."""
    return name.replace("/", "--").replace(".", "_").replace("#", "_")
