"""Register the simulated engine: deterministic tokens, a model of time and memory, faults on demand. Needs no model."""

from trunnion import EnginePlugin, Suitability, hookimpl

from .capabilities import CAPABILITIES
from .config import SimConfig
from .placement import resources


@hookimpl
def trunnion_engines() -> list[EnginePlugin]:
    """Return the simulated engine."""
    return [
        EnginePlugin(
            name="sim",
            factory="trunnion_sim.engine:SimEngine",
            config=SimConfig,
            summary="Simulated engine: deterministic tokens, a model of time and memory, faults on demand",
            capabilities=CAPABILITIES,
            resources=resources,
            needs_model=False,
            model_files=False,
            check_config={"tpot": 0.002, "eos_after": 30},
            hardware=("cpu",),
            suits=lambda _: Suitability(score=0, reason="it simulates; name it to use it"),
            semantic_version="2",
        )
    ]


__all__ = ["CAPABILITIES", "SimConfig", "trunnion_engines"]
