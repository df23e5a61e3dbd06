"""Bring a model up on a worker thread: load it, allocate its cache, load its adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion.errors import AdapterNotFound, ConfigError, InvalidArgument
from trunnion.startup import StartupClock

from .adapters import AdapterTable
from .config import TransformersConfig
from .errors import load_error
from .loading import Loaded, check_model, load

if TYPE_CHECKING:
    from .classifying import Classifier
    from .embedding import Embedder
    from .generation import Generation

    Runner = Generation | Embedder | Classifier


def bring_up(
    model: str, config: TransformersConfig, adapters: AdapterTable, clock: StartupClock
) -> tuple[Loaded, Runner]:
    """Return the model and what runs it; its thread is not started yet. Fills the table of adapters.

    Raises:
        ModelNotFound: There is no such model.
        ConfigError: The library refuses the model or the configuration, or an adapter cannot be loaded.
        InternalError: A library is missing, or failed.
    """
    try:
        check_model(model)
        with clock.stage("import libraries"):
            from .classifying import Classifier
            from .embedding import Embedder
            from .generation import Generation
        with clock.stage("load model"):
            loaded = load(model, config)
        if loaded.kind == "embed":
            return loaded, Embedder(loaded, config)
        if loaded.kind == "classify":
            return loaded, Classifier(loaded, config)
        with clock.stage("allocate cache"):
            generation = Generation(loaded, config)
    except Exception as error:
        raise load_error(model, error) from error
    with clock.stage("load adapters"):
        for name, path in config.adapters.items():
            adapter = adapters.make(name, path)
            try:
                generation.switch.load(adapter)
            except (AdapterNotFound, InvalidArgument) as error:
                raise ConfigError(error.message, param=f"adapters.{name}") from error
            adapters.add(adapter)
    return loaded, generation
