"""Load LoRA adapters when a row first names them."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from trunnion import AdapterRef, HotAdapters, Pipeline
from trunnion.errors import AdapterNotFound, InternalError, TrunnionError, UnsupportedFeature

_PARAM: Final = "model"


class AdapterLoader:
    """Know which adapters are loaded; on the engine's loop, except for its making.

    ``root`` is the folder whose subfolders are the adapters; the empty string takes the name as path or Hub name;
    None loads nothing.
    """

    def __init__(self, pipeline: Pipeline, root: str | None) -> None:
        self._pipeline = pipeline
        self.root = root
        self._loaded = set(pipeline.info.adapters)
        self._lock = asyncio.Lock()

    @property
    def loaded(self) -> AbstractSet[str]:
        """Return the adapters that are loaded."""
        return self._loaded

    def missing(self, names: AbstractSet[str]) -> set[str]:
        """Return those that are not loaded yet."""
        return set(names - self._loaded)

    async def load(self, names: AbstractSet[str]) -> dict[str, TrunnionError]:
        """Load adapters one after the other; return the error of each that could not be."""
        failed: dict[str, TrunnionError] = {}
        async with self._lock:
            for name in sorted(self.missing(names)):
                try:
                    await self._load_one(name)
                except TrunnionError as error:
                    failed[name] = error
                except Exception as error:  # noqa: BLE001 - whatever it is, it costs the rows that name it, no others
                    failed[name] = InternalError(f"adapter {name!r} could not be loaded: {error}", param=_PARAM)
                    failed[name].__cause__ = error
        return failed

    async def _load_one(self, name: str) -> None:
        engine = self._pipeline.engine
        able = "hot_adapters/1" in self._pipeline.info.capabilities.protocols
        if not able or not isinstance(engine, HotAdapters):
            message = f"engine {self._pipeline.info.engine!r} cannot load adapters while running; declare them at start"
            raise UnsupportedFeature(message, param=_PARAM)
        await engine.load_adapter(AdapterRef(name=name, path=self._path(name)))
        self._loaded.add(name)

    def _path(self, name: str) -> str:
        if not self.root:
            return name
        root = Path(self.root).expanduser().resolve()
        path = (root / name).resolve()
        if root not in path.parents or not path.is_dir():
            raise AdapterNotFound(f"there is no adapter {name!r} in {root}", param=_PARAM)
        return str(path)
