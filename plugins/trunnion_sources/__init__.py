"""Fetch models: from the Hugging Face Hub, from object stores by fsspec, and from web servers.

This module is light; what talks to a store loads where a model is fetched.
"""

from __future__ import annotations

from trunnion.hookspecs import hookimpl
from trunnion.plugin import LibraryRequirement, SourcePlugin

from .config import HubConfig, StoreConfig, WebConfig


def _store(name: str, library: str, schemes: tuple[str, ...], summary: str) -> SourcePlugin:
    install = f"pip install 'trunnion[{name}]'"
    return SourcePlugin(
        name=name,
        factory="trunnion_sources.store:StoreSource",
        schemes=schemes,
        config=StoreConfig,
        summary=summary,
        requires=(
            LibraryRequirement(module="fsspec", distributions=("fsspec",), minimum="2024.6", install=install),
            LibraryRequirement(module=library, distributions=(library,), install=install),
        ),
    )


PLUGINS = (
    SourcePlugin(
        name="hub",
        factory="trunnion_sources.hub:HubSource",
        schemes=("hf",),
        config=HubConfig,
        summary="Hugging Face Hub: hf://org/name@revision, or org/name alone",
        requires=(
            LibraryRequirement(
                module="huggingface_hub",
                distributions=("huggingface_hub", "huggingface-hub"),
                minimum="0.34",
                install="pip install 'trunnion[hub]'",
            ),
        ),
    ),
    SourcePlugin(
        name="web",
        factory="trunnion_sources.web:WebSource",
        schemes=("https", "http"),
        config=WebConfig,
        summary="Web servers: an archive, or a folder with SHA256SUMS",
    ),
    _store("s3", "s3fs", ("s3", "s3a"), "S3 and stores that speak like it: s3://bucket/folder"),
    _store("gs", "gcsfs", ("gs", "gcs"), "Google Cloud Storage: gs://bucket/folder"),
    _store("az", "adlfs", ("az", "abfs", "abfss"), "Azure Blob Storage: az://container/folder"),
)


@hookimpl
def trunnion_sources() -> list[SourcePlugin]:
    """Register the sources."""
    return list(PLUGINS)


__all__ = ["PLUGINS", "HubConfig", "StoreConfig", "WebConfig", "trunnion_sources"]
