"""Say what one simulated replica takes."""

from __future__ import annotations

from trunnion.spec import Bundle, Resources

from .config import SimConfig


def resources(config: SimConfig) -> Resources:
    """Return one bundle with the CPUs of all workers: as an engine that starts its own processes would ask."""
    workers = config.tensor_parallel_size * config.data_parallel_size
    return Resources(bundles=(Bundle(cpu=config.worker_cpus * workers),))
