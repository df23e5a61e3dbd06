"""Say what hardware engines will find on the cluster, for ``engine="auto"``."""

from __future__ import annotations

import sys

from trunnion.suitability import Machine


def cluster() -> Machine | None:
    """Return the CPUs and GPUs of all nodes; None, for this machine's, where Ray has not been started yet."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    there = ray.cluster_resources()
    return Machine(cpus=int(there.get("CPU", 0)), gpus=int(there.get("GPU", 0)))
