"""Specify the hooks that a plugin module implements with :data:`hookimpl`. They register; they do no work.

Each is called once per process, when the registry loads, in any order. Each returns a list of frozen values and must
import nothing heavy. A module implements only those it needs.
"""

from __future__ import annotations

import pluggy

from .plugin import EnginePlugin, HooksPlugin, RouterPlugin, SourcePlugin, StagePlugin

PROJECT = "trunnion"
ENTRY_POINT_GROUP = "trunnion.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def trunnion_engines() -> list[EnginePlugin]:  # type: ignore[empty-body]
    """Return the engines of this plugin; an empty list means none."""


@hookspec
def trunnion_stages() -> list[StagePlugin]:  # type: ignore[empty-body]
    """Return the request and stream stages of this plugin."""


@hookspec
def trunnion_routers() -> list[RouterPlugin]:  # type: ignore[empty-body]
    """Return the routers of this plugin."""


@hookspec
def trunnion_hooks() -> list[HooksPlugin]:  # type: ignore[empty-body]
    """Return the request hooks of this plugin."""


@hookspec
def trunnion_sources() -> list[SourcePlugin]:  # type: ignore[empty-body]
    """Return the sources of models of this plugin; two that claim one scheme are both refused."""
