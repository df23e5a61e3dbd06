"""Place replicas: what the engine takes becomes the resources of an actor, or a placement group around it."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray

from trunnion import PipelineSpec, Resources, get_registry
from trunnion.errors import ConfigError
from trunnion_ray._ray_private import can_grow

from .config import ProcessorConfig

logger = logging.getLogger("trunnion.data")


def resources_of(config: ProcessorConfig, spec: PipelineSpec) -> Resources:
    """Return what one replica takes: the plugin's word, with what the job says in its place."""
    resources = get_registry(spec.policy).resources(spec.engine)
    if config.bundles is not None:
        resources = replace(resources, bundles=config.bundles)
    if config.strategy is not None:
        resources = replace(resources, strategy=config.strategy)
    kind = config.accelerator_type
    if kind is not None and kind.upper() != "CPU":
        bundles = tuple(replace(bundle, accelerator_type=kind) for bundle in resources.bundles)
        resources = replace(resources, bundles=bundles)
    return resources


def needs_group(resources: Resources) -> bool:
    """Tell whether a replica takes more than its actor can ask for."""
    return len(resources.bundles) > 1 or resources.workers == "ray"


def placement(resources: Resources, replicas: int = 1) -> dict[str, Any]:
    """Return the arguments of ``map_batches`` that place an actor.

    One bundle is asked for by the actor itself: with one CPU and no GPU, reading and mapping before it run inside the
    actor. Several bundles, or workers that Ray places, get a placement group per actor.
    """
    if needs_group(resources):
        return {"num_cpus": 0, "ray_remote_args_fn": grouped(resources, replicas)}
    bundle = resources.bundles[0]
    arguments: dict[str, Any] = {"num_cpus": bundle.cpu}
    if bundle.gpu:
        arguments["num_gpus"] = bundle.gpu
    if bundle.memory:
        arguments["memory"] = bundle.memory
    if bundle.accelerator_type:
        arguments["accelerator_type"] = bundle.accelerator_type
    if bundle.custom:
        arguments["resources"] = dict(bundle.custom)
    return arguments


def grouped(resources: Resources, replicas: int) -> Callable[[], dict[str, Any]]:
    """Return the function that Ray Data calls for the placement of each actor; the actor removes its group at its end.

    Ray Data calls it more often than it makes actors. So there are as many groups as replicas, given out in turn, and
    one that was removed is made again.
    """
    bundles, strategy = [bundle.to_ray() for bundle in resources.bundles], resources.strategy
    groups: list[Any] = []
    turn = itertools.count()

    def place() -> dict[str, Any]:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        index = next(turn) % replicas
        if index == len(groups):
            groups.append(ray.util.placement_group(bundles, strategy=strategy))
        elif ray.util.placement_group_table(groups[index]).get("state") in (None, "REMOVED"):
            groups[index] = ray.util.placement_group(bundles, strategy=strategy)
        return {
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                groups[index], placement_group_capture_child_tasks=True
            )
        }

    return place


def remove_own_group() -> None:
    """Give back the placement group this actor was made in; Ray ends the actor with it."""
    group = ray.util.get_current_placement_group()
    if group is not None:
        ray.util.remove_placement_group(group)


def check_room(needed: Sequence[tuple[Resources, int]]) -> None:
    """Check that every model's replicas fit, with a CPU for reading beside them: else they wait for each other.

    Args:
        needed: What one replica of each model takes, and how many there are at least.

    Raises:
        ConfigError: They do not, and the cluster cannot grow. Of one that may grow, a warning says it.
    """
    there = ray.cluster_resources()
    for name, reading in (("CPU", 1), ("GPU", 0)):
        takes = sum(count * bundle.to_ray().get(name, 0) for one, count in needed for bundle in one.bundles)
        has = there.get(name, 0)
        if takes + reading <= has or not takes:
            continue
        counts = [count for _, count in needed]
        who = f"{counts[0]} replica(s)" if len(counts) == 1 else f"{sum(counts)} replicas of {len(counts)} models"
        message = (
            f"{who} take {takes:g} {name}{' and reading one more' if reading else ''}, and the cluster has {has:g}; "
            f"give Ray more, such as ray.init(num_{name.lower()}s={math.ceil(takes + reading)}), ask for fewer "
            f"replicas (`concurrency`), or give them `bundles` of less, such as Bundle({name.lower()}=0.5)"
        )
        if not can_grow():
            raise ConfigError(message, param="models" if len(counts) > 1 else "concurrency")
        logger.warning("%s; the job waits until there are more", message)


def describe(resources: Resources) -> str:
    """Put the resources of one replica into a few words."""
    bundles = resources.bundles
    first = bundles[0]
    parts = [f"{first.cpu:g} CPU"] if first.cpu else []
    parts += [f"{first.gpu:g} GPU"] if first.gpu else []
    text = " + ".join(parts) or "no CPU"
    if needs_group(resources):
        return f"a placement group of {len(bundles)} x {text}, {resources.strategy}"
    return text
