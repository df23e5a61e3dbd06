"""Mount any OpenAI-compatible endpoint over HTTP. This module is light; the openai package loads with the engine."""

from __future__ import annotations

from trunnion.hookspecs import hookimpl
from trunnion.plugin import EnginePlugin, LibraryRequirement
from trunnion.spec import Bundle, Resources
from trunnion.suitability import EngineQuestion, Suitability

from .capabilities import UPPER_BOUND
from .config import OpenAIConfig

_CLIENT: Resources = Resources(bundles=(Bundle(cpu=0.25),))


def resources(_: OpenAIConfig) -> Resources:
    """Return what one replica takes: a client that waits for others to compute."""
    return _CLIENT


def divide(config: OpenAIConfig, replicas: int) -> dict[str, float]:
    """Return what each of so many replicas changes, so that the limits per minute are those of all of them."""
    return {"limit_share": config.limit_share / replicas}


def suits(question: EngineQuestion) -> Suitability:
    """Answer for ``engine="auto"``: only where an address says that a remote engine is meant."""
    if "base_url" in question.config:
        return Suitability(score=100, reason="base_url names an endpoint")
    return Suitability(score=0, reason="no base_url names an endpoint")


PLUGIN = EnginePlugin(
    name="openai",
    factory="trunnion_openai.engine:OpenAIEngine",
    config=OpenAIConfig,
    summary="Any OpenAI-compatible endpoint over HTTP: one connection pool, retries, several addresses, limits",
    capabilities=UPPER_BOUND,
    resources=resources,
    divide=divide,
    requires=(
        LibraryRequirement(
            module="openai",
            distributions=("openai",),
            minimum="2.0",
            below="4",
            install="pip install 'trunnion[openai]'",
        ),
    ),
    needs_model=False,
    hardware=("remote",),
    suits=suits,
    api_version=(1, 3),
)


@hookimpl
def trunnion_engines() -> list[EnginePlugin]:
    """Register the engine for OpenAI-compatible endpoints."""
    return [PLUGIN]


__all__ = ["PLUGIN", "OpenAIConfig", "trunnion_engines"]
