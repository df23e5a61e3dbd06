"""Bring what an engine's spec names to this node: the model, and LoRA adapters that are given by URI."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .errors import PluginError
from .fetch import OnProgress
from .sources import fetch, is_path, scheme_of
from .spec import EngineSpec

if TYPE_CHECKING:
    from .registry import Registry

logger = logging.getLogger("trunnion.sources")
_BARE_NAMES_SINCE: Final = (1, 1)
"""The plugin API that had sources: an engine written before it gets a bare name as it was written."""


def must_fetch(spec: EngineSpec, registry: Registry) -> bool:
    """Tell whether anything is to be brought here before the engine is built.

    Raises:
        PluginError: The engine cannot be used here.
    """
    plugin = registry.engine(spec.engine)
    if not plugin.model_files or set(plugin.hardware) == {"remote"}:
        return False
    return bool(_adapters(spec)) or _model_elsewhere(spec, registry)


def _model_elsewhere(spec: EngineSpec, registry: Registry) -> bool:
    if not spec.model or is_path(spec.model):
        return False
    if scheme_of(spec.model) is None and registry.engine(spec.engine).api_version < _BARE_NAMES_SINCE:
        return False
    # Engines whose processes are on several nodes fetch from the Hub on each of them, by the name.
    return scheme_of(spec.model) is not None or registry.resources(spec).workers != "ray"


def _adapters(spec: EngineSpec) -> dict[str, str]:
    """Return the adapters that are given by URI; a name alone is left to the engine, which may know the Hub."""
    given = spec.config.get("adapters")
    pairs = given.items() if isinstance(given, Mapping) else ()
    return {name: path for name, path in pairs if isinstance(path, str) and scheme_of(path) is not None}


async def with_local_files(
    spec: EngineSpec, registry: Registry, *, on_progress: OnProgress | None, stop: threading.Event
) -> EngineSpec:
    """Return the spec with paths in the place of references, once all of it is here.

    A bare name stays as it is where no source takes it: the engine's own library may know it.

    Raises:
        TrunnionError: What the sources failed with.
    """
    model, revision = spec.model, spec.config.get("revision")
    if model is not None and _model_elsewhere(spec, registry):
        try:
            model = await fetch(model, registry=registry, revision=revision, on_progress=on_progress, stop=stop)
        except PluginError as error:
            if scheme_of(model) is not None:
                raise
            logger.info("%s goes to the engine as it is, which may fetch it itself: %s", model, error)
    local = {
        name: await fetch(path, registry=registry, on_progress=on_progress, stop=stop)
        for name, path in _adapters(spec).items()
    }
    config = {**spec.config, "adapters": {**spec.config["adapters"], **local}} if local else spec.config
    return replace(spec, model=model, config=config)
