"""Mount Hugging Face transformers' continuous batching. This module is light; the library loads in ``start()``."""

from __future__ import annotations

from trunnion.hookspecs import hookimpl
from trunnion.plugin import EnginePlugin, LibraryRequirement

from .capabilities import UPPER_BOUND
from .config import TransformersConfig
from .placement import resources
from .suits import suits

PLUGIN = EnginePlugin(
    name="transformers",
    factory="trunnion_transformers.engine:TransformersEngine",
    config=TransformersConfig,
    summary="Hugging Face transformers' own continuous batching, LoRA in turns, encoder embeddings; CPU and GPU",
    capabilities=UPPER_BOUND,
    resources=resources,
    requires=(
        LibraryRequirement(
            module="transformers",
            distributions=("transformers",),
            minimum="5.19",
            below="5.24",
            install="pip install 'trunnion[transformers]'",
        ),
    ),
    hardware=("cpu", "gpu"),
    suits=suits,
    api_version=(1, 1),
)


@hookimpl
def trunnion_engines() -> list[EnginePlugin]:
    """Register the transformers engine."""
    return [PLUGIN]


__all__ = ["PLUGIN", "TransformersConfig", "trunnion_engines"]
