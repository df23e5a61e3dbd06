"""Find the groups of worker nodes that the models of a config file need."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .planned import Planned

_PACKED: Final = frozenset({"PACK", "STRICT_PACK"})
_GPUS_OF_A_NODE: Final = 8
"""GPUs that one machine has at most; bundles that are to be packed, and are more, go over several."""
_PLAIN: Final = ("CPU", "GPU", "memory")
_ROUNDING: Final = 1e-6
_USABLE: Final = 0.7
"""Share of a pod's memory that Ray gives to actors; the rest is its object store's."""

Unit = Mapping[str, float]
"""Resources that must lie on one node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGroup:
    """Describe worker nodes that are alike.

    Attributes:
        name: A name for it, as Kubernetes takes it.
        cpu: CPUs of a node.
        gpu: GPUs of a node.
        memory: Bytes that a node must have; 0 where no engine says.
        accelerator_type: The kind of its GPUs, as Ray names it.
        custom: Custom resources of a node.
        minimum: Nodes that the least replicas need.
        initial: Nodes at first.
        maximum: Nodes that the most replicas need.
    """

    name: str
    cpu: int
    gpu: int
    memory: int
    accelerator_type: str | None
    custom: Mapping[str, float]
    minimum: int
    initial: int
    maximum: int


def worker_groups(plan: Sequence[Planned]) -> list[WorkerGroup]:
    """Return the groups: one for what runs on CPUs, one for each kind and number of GPUs that a node must have.

    A node of a group has room for the largest replica in it that must lie on one node.
    """
    kinds: dict[tuple[str, int, tuple[str, ...]], list[Planned]] = {}
    for one in plan:
        unit = _largest(units(one))
        custom = tuple(sorted(name for name in unit if name not in _PLAIN))
        kinds.setdefault((one.accelerator_type or "", math.ceil(unit.get("GPU", 0)), custom), []).append(one)
    return [_group(kind, gpus, models) for (kind, gpus, _), models in sorted(kinds.items())]


def units(one: Planned) -> list[Unit]:
    """Return what each node must have room for, for one replica."""
    if len(one.bundles) == 1 or one.strategy not in _PACKED:
        return list(one.bundles)
    total = _sum(one.bundles)
    if one.strategy == "STRICT_PACK" or total.get("GPU", 0) <= _GPUS_OF_A_NODE:
        return [total]
    found: list[Unit] = []
    for bundle in one.bundles:  # as many on a node as it has GPUs for
        if found and found[-1].get("GPU", 0) + bundle.get("GPU", 0) <= _GPUS_OF_A_NODE:
            found[-1] = _sum([found[-1], bundle])
        else:
            found.append(bundle)
    return found


def _group(kind: str, gpus: int, models: Sequence[Planned]) -> WorkerGroup:
    node = _largest(unit for one in models for unit in units(one))
    custom = {name: float(math.ceil(amount)) for name, amount in node.items() if name not in _PLAIN}
    room = {**{name: float(math.ceil(node.get(name, 0))) for name in ("CPU", "GPU")}, **custom}
    room["memory"] = node.get("memory", 0.0)
    label = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    name = "-".join(part for part in (f"gpu{gpus}" if gpus else "cpu", label, *sorted(custom)) if part)

    def nodes(counts: Iterable[int]) -> int:
        return _packed([unit for one, count in zip(models, counts, strict=True) for unit in units(one) * count], room)

    return WorkerGroup(
        name=re.sub(r"[^a-z0-9-]+", "-", name.lower()),
        cpu=max(1, int(room["CPU"])),
        gpu=gpus,
        memory=math.ceil(room["memory"] / _USABLE),
        accelerator_type=kind or None,
        custom=custom,
        minimum=nodes(one.minimum for one in models),
        initial=nodes(one.initial for one in models),
        maximum=nodes(one.maximum for one in models),
    )


def _packed(wanted: Sequence[Unit], room: Unit) -> int:
    """Return how many nodes take all units, the largest placed first, each on the first node that has room."""
    nodes: list[dict[str, float]] = []
    for unit in sorted(wanted, key=lambda one: (one.get("GPU", 0), one.get("CPU", 0)), reverse=True):
        for free in nodes:
            if all(free.get(name, 0) >= amount - _ROUNDING for name, amount in unit.items()):
                break
        else:
            free = dict(room)
            nodes.append(free)
        for name, amount in unit.items():
            free[name] = free.get(name, 0) - amount
    return len(nodes)


def _largest(found: Iterable[Unit]) -> dict[str, float]:
    """Return the most of each resource that one unit has."""
    most: dict[str, float] = {}
    for unit in found:
        for name, amount in unit.items():
            most[name] = max(most.get(name, 0), amount)
    return most


def _sum(bundles: Iterable[Unit]) -> dict[str, float]:
    total: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0) + amount
    return total
