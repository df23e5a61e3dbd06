"""Mount llama.cpp through llama-cpp-python. This module is light; the library loads in ``start()``."""

from __future__ import annotations

from trunnion import Bundle, EnginePlugin, EngineQuestion, LibraryRequirement, Resources, Suitability, hookimpl

from .capabilities import UPPER_BOUND
from .config import LlamaCppConfig


def resources(config: LlamaCppConfig) -> Resources:
    """Return one CPU per compute thread, and a GPU where layers are offloaded."""
    return Resources(bundles=(Bundle(cpu=config.n_threads or 1, gpu=1 if config.n_gpu_layers else 0),))


def suits(question: EngineQuestion) -> Suitability:
    """Suit GGUF files, which nothing else here reads, and nothing else."""
    model = question.model
    if model is not None and (".gguf" in model.weights or model.reference.endswith(".gguf")):
        return Suitability(score=80, reason="the model is a GGUF file")
    return Suitability(score=0, reason="it reads GGUF files alone; `python -m trunnion_llamacpp.convert` makes one")


PLUGIN = EnginePlugin(
    name="llamacpp",
    factory="trunnion_llamacpp.engine:LlamaCppEngine",
    config=LlamaCppConfig,
    summary="llama.cpp in process: GGUF models, continuous batching, LoRA in turns, grammars",
    capabilities=UPPER_BOUND,
    resources=resources,
    requires=(
        LibraryRequirement(
            module="llama_cpp",
            distributions=("llama-cpp-python",),
            minimum="0.3.36",
            below="0.4",
            install="pip install llama-cpp-python",
        ),
    ),
    hardware=("cpu", "gpu"),
    suits=suits,
    api_version=(1, 1),
)


@hookimpl
def trunnion_engines() -> list[EnginePlugin]:
    """Register the llama.cpp engine."""
    return [PLUGIN]


__all__ = ["PLUGIN", "LlamaCppConfig", "trunnion_engines"]
