"""Define the settings of the sources; they come from ``TRUNNION_SOURCES`` of the node that fetches."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trunnion.plugin import PluginConfig


class HubConfig(PluginConfig):
    """Set what is taken of a repository on the Hub."""

    allow: tuple[str, ...] = Field(
        default=(), description="Patterns of files to take, such as '*.safetensors'; empty: all that are needed."
    )
    ignore: tuple[str, ...] = Field(default=(), description="Patterns of files to leave out, in any case.")
    weights: Literal["auto", "safetensors", "bin", "all"] = Field(
        default="auto",
        description="Which format of the weights is taken where there are several. auto: safetensors, or else bin.",
    )
    workers: int = Field(default=8, ge=1, description="Files fetched at the same time.")
    verify: bool = Field(
        default=True, description="Compare the SHA-256 of large files that were fetched just now with the Hub's."
    )


class StoreConfig(PluginConfig):
    """Set up an object store."""

    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of the fsspec filesystem, such as endpoint_url or anon of s3fs.",
    )
    ignore: tuple[str, ...] = Field(default=(), description="Patterns of files to leave out, such as 'optimizer*'.")
    workers: int = Field(default=8, ge=1, description="Files fetched at the same time.")
    chunk_mib: int = Field(default=16, ge=1, description="MiB asked for at once.")
    attempts: int = Field(default=5, ge=1, description="Attempts in a row that may bring nothing before one gives up.")


class WebConfig(PluginConfig):
    """Set how web servers are asked."""

    headers_env: dict[str, str] = Field(
        default_factory=dict,
        description="Headers to send, to the names of environment variables that hold their values, such as "
        "{'Authorization': 'MODELS_AUTHORIZATION'}. Sent to the named hosts alone.",
    )
    hosts: tuple[str, ...] = Field(default=(), description="Hosts that are sent the headers of headers_env.")
    read_timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte before one asks again.")
    workers: int = Field(default=4, ge=1, description="Files fetched at the same time.")
    attempts: int = Field(default=5, ge=1, description="Attempts in a row that may bring nothing before one gives up.")
