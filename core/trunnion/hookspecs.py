"""Specify the hooks that a plugin module implements with :data:`hookimpl`. They register; they do no work.

Of all of them holds: a hook is called once in each process that asks for the registry (the driver, every Ray worker,
the command line), when the registry loads, plugin by plugin in the order of entry points' names; nothing may depend on
that order. It returns a list (or tuple) of frozen values and must import nothing heavy. An empty list registers
nothing and is no mistake. None, or anything that is no list, makes the plugin *failed*: a forgotten ``return`` is told
from a plugin that has nothing. A module implements only the hooks it needs, and at least one.
"""

from __future__ import annotations

import pluggy

from .plugin import EnginePlugin, HooksPlugin, RouterPlugin, SourcePlugin, StagePlugin

PROJECT = "trunnion"
ENTRY_POINT_GROUP = "trunnion.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Mark a function of a plugin's module as its implementation of the hook of that name."""


@hookspec
def trunnion_engines() -> list[EnginePlugin]:  # type: ignore[empty-body]
    """Return the engines of this plugin.

    Called when a process loads its registry, before any engine is built. The factories are called later, where an
    engine runs, once for each engine. An empty list means none.
    """


@hookspec
def trunnion_stages() -> list[StagePlugin]:  # type: ignore[empty-body]
    """Return the request and stream stages of this plugin.

    Called when a process loads its registry. The factories are called where the pipeline runs, after its engine has
    started, for the stages that are in a plan. An empty list means none.
    """


@hookspec
def trunnion_routers() -> list[RouterPlugin]:  # type: ignore[empty-body]
    """Return the routers of this plugin.

    Called when a process loads its registry. The factory is called once on the driver, to check the configuration, and
    once in each process that sends requests to replicas. An empty list means none.
    """


@hookspec
def trunnion_hooks() -> list[HooksPlugin]:  # type: ignore[empty-body]
    """Return the request hooks of this plugin.

    Called when a process loads its registry. The factory is called each time a pipeline opens, in the engine's
    process, in the order in which the hooks will run: ``priority``, then name. An empty list means none.
    """


@hookspec
def trunnion_sources() -> list[SourcePlugin]:  # type: ignore[empty-body]
    """Return the sources of models of this plugin.

    Called when a process loads its registry. The factory is called in the process that fetches, on the node where the
    engine will run, for each fetch. Two sources that claim one scheme are both refused. An empty list means none.
    """
