"""Configurations on the simulated engine."""

from trunnion_ray.data import ProcessorConfig


def sim_config(**fields):
    """Return a configuration for the simulated engine, four tokens per row."""
    return ProcessorConfig(engine="sim", **{"sampling": {"max_tokens": 4}, **fields})
