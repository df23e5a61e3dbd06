"""Register the simulated engine: deterministic tokens, settable times, faults on demand. Needs no model."""

from trunnion import Capabilities, EnginePlugin, Suitability, hookimpl

from .config import SimConfig

CAPABILITIES = Capabilities.of(
    yes=(
        "sampling.max_tokens",
        "sampling.min_tokens",
        "sampling.n",
        "sampling.seed",
        "sampling.temperature",
        "sampling.top_p",
        "sampling.ignore_eos",
        "adapter",
        "priority",
    ),
    no=("sampling.stop", "sampling.logprobs", "output_format.*", "media.*", "tools"),
    prompts=("messages", "text", "token_ids"),
    protocols=("reports_load/1", "probes_health/1"),
    reasons={"output_format.json_schema": "the simulator makes words, not structure"},
)


@hookimpl
def trunnion_engines() -> list[EnginePlugin]:
    """Return the simulated engine."""
    return [
        EnginePlugin(
            name="sim",
            factory="trunnion_sim.engine:SimEngine",
            config=SimConfig,
            summary="Simulated engine: deterministic tokens, settable times, faults on demand",
            capabilities=CAPABILITIES,
            needs_model=False,
            model_files=False,
            hardware=("cpu",),
            suits=lambda _: Suitability(score=0, reason="it simulates; name it to use it"),
        )
    ]


__all__ = ["CAPABILITIES", "SimConfig", "trunnion_engines"]
