"""Bring a model up on a worker thread: load it, allocate its cache, load its adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion.errors import AdapterNotFound, ConfigError, InvalidArgument

from .adapters import AdapterTable
from .config import TransformersConfig
from .errors import load_error
from .loading import Loaded, load

if TYPE_CHECKING:
    from .embedding import Embedder
    from .generation import Generation

    Runner = Generation | Embedder


def bring_up(model: str, config: TransformersConfig, adapters: AdapterTable) -> tuple[Loaded, Runner]:
    """Return the model and what runs it; its thread is not started yet. Fills the table of adapters.

    Raises:
        ModelNotFound: There is no such model.
        ConfigError: The library refuses the model or the configuration, or an adapter cannot be loaded.
        InternalError: A library is missing, or failed.
    """
    try:
        loaded = load(model, config)
        if loaded.kind == "embed":
            from .embedding import Embedder

            return loaded, Embedder(loaded, config)
        from .generation import Generation

        generation = Generation(loaded, config)
    except Exception as error:
        raise load_error(model, error) from error
    for name, path in config.adapters.items():
        adapter = adapters.make(name, path)
        try:
            generation.switch.load(adapter)
        except (AdapterNotFound, InvalidArgument) as error:
            raise ConfigError(error.message, param=f"adapters.{name}") from error
        adapters.add(adapter)
    return loaded, generation
