"""Find out before a deployment whether a replica of each model fits on the cluster, and if not why."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trunnion.errors import ConfigError
from trunnion_ray._ray_private import can_grow

from . import _ray_private

_log = logging.getLogger("trunnion.serve")

_ROUNDING: Final = 1e-6

Unit = Mapping[str, float]
"""Resources by name: of a node, or of what must lie on one."""


def misfit(bundles: Sequence[Unit], strategy: str, nodes: Sequence[Unit]) -> str | None:
    """Return why these bundles can never be placed on nodes that have nothing else to do; None if they can.

    Args:
        bundles: What one replica takes.
        strategy: STRICT_PACK, PACK, SPREAD or STRICT_SPREAD.
        nodes: What each node has in all.
    """
    if strategy == "STRICT_PACK":
        names = {name for bundle in bundles for name in bundle}
        whole = {name: sum(bundle.get(name, 0.0) for bundle in bundles) for name in names}
        if any(_has(node, whole) for node in nodes):
            return None
        return f"one node must have {_words(whole)}, and the largest has {_words(_most(nodes, whole))}"
    for bundle in bundles:
        if not any(_has(node, bundle) for node in nodes):
            return f"a node must have {_words(bundle)}, and the largest has {_words(_most(nodes, bundle))}"
    free = [dict(node) for node in nodes]
    # First fit, the largest first; nearly always what can be had at all.
    for bundle in sorted(bundles, key=lambda one: sum(one.values()), reverse=True):
        node = next((node for node in free if _has(node, bundle)), None)
        if node is None:
            where = "nodes of their own" if strategy == "STRICT_SPREAD" else "all nodes together"
            sizes = "; ".join(_words({name: node.get(name, 0.0) for name in bundle}) for node in nodes)
            return f"{len(bundles)} bundles of {_words(bundle)} do not fit on {where}: {sizes}"
        if strategy == "STRICT_SPREAD":
            free = [other for other in free if other is not node]
        else:
            for name, amount in bundle.items():
                node[name] = node.get(name, 0.0) - amount
    return None


def check_room(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Say of models which cannot be placed; ``models`` holds their deployments' options by name.

    Nothing is said before Ray has started, or where nodes may come with load. A model that does not fit does not keep
    others from being served, so it is refused only if none fits.

    Raises:
        ConfigError: No model fits, and the cluster cannot grow.
    """
    nodes = _ray_private.node_resources()
    if not nodes:
        return
    reasons = {}
    for name, options in models.items():
        actor = options["ray_actor_options"]
        own = {"CPU": actor.get("num_cpus", 0.0), "GPU": actor.get("num_gpus", 0.0), **(actor.get("resources") or {})}
        bundles = options.get("placement_group_bundles") or [own]
        reason = misfit(
            [{key: float(amount) for key, amount in bundle.items() if amount} for bundle in bundles],
            options.get("placement_group_strategy") or "PACK",
            nodes,
        )
        if reason is not None:
            reasons[name] = reason
    if not reasons:
        return
    message = "; ".join(f"model {name!r} has no place: {reason}" for name, reason in reasons.items())
    if len(reasons) == len(models) and not can_grow():
        raise ConfigError(f"{message}. Ask for less (config, placement_group_bundles), or add nodes", param="models")
    _log.warning("%s. It waits until there are such nodes", message)


def _has(node: Unit, wanted: Unit) -> bool:
    return all(node.get(name, 0.0) + _ROUNDING >= amount for name, amount in wanted.items())


def _most(nodes: Sequence[Unit], wanted: Unit) -> Unit:
    """Return of the node that has the most of what is wanted, only that."""
    best = max(nodes, key=lambda node: [min(node.get(name, 0.0), amount) for name, amount in wanted.items()])
    return {name: best.get(name, 0.0) for name in wanted}


def _words(unit: Unit) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in sorted(unit.items())) or "nothing"
