"""Serve more LoRA adapters than were declared: those found in folders, and those loaded by name and path."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from .adapter_folders import AdapterFolders, check_name
from .adapter_setting import LoraSettings
from .adapter_shelf import AdapterShelf
from .engine import HotAdapters
from .errors import UnsupportedFeature
from .pipeline import Pipeline
from .spec import EngineSpec


def declared_adapters(spec: EngineSpec) -> dict[str, str]:
    """Return the adapters the engine is started with, name to path; the path is empty where it takes names alone."""
    given = spec.config.get("adapters") or {}
    return dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, "")


class AdapterLibrary:
    """Keep a started pipeline's shelf of adapters, and look into the folders now and then."""

    def __init__(self, pipeline: Pipeline, settings: LoraSettings, known: Mapping[str, str] | None = None) -> None:
        """Take further adapters that may be asked for from the start, name to path.

        Raises:
            ConfigError: A folder is not there.
            UnsupportedFeature: The engine cannot load adapters while it runs.
        """
        engine, info = pipeline.engine, pipeline.info
        if "hot_adapters/1" not in info.capabilities.protocols or not isinstance(engine, HotAdapters):
            reason = info.capabilities.reasons.get("hot_adapters/1")
            because = f": {reason}" if reason else ""
            message = (
                f"engine {info.engine!r} cannot load adapters while it runs{because}; leave folders and max_loras out"
            )
            raise UnsupportedFeature(message, param="lora")
        self.shelf = AdapterShelf(engine, declared_adapters(pipeline.spec.engine), limit=settings.slots)
        self._folders = AdapterFolders(settings.folders)
        self._seconds = settings.scan_seconds
        self._given = {**declared_adapters(pipeline.spec.engine), **(known or {})}
        self._found: dict[str, str] = {}
        self._removed: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        for name, path in (known or {}).items():
            self.shelf.know(name, path)

    async def start(self) -> None:
        """Find what the folders hold, and keep looking."""
        await self.look()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Stop looking, and give up what is being loaded."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self.shelf.close()

    async def look(self) -> None:
        """Let adapters that came into the folders be asked for; forget those whose folder is gone."""
        found = await asyncio.to_thread(self._folders.scan)
        for name, path in found.items():
            if name not in self._found and name not in self._removed:
                self.shelf.know(name, path)
        gone = {name for name in self._found if name not in found}
        self._removed &= found.keys()
        self._found = found
        for name in gone:
            if name in self.shelf and name not in self._given:
                await self.shelf.remove(name)

    async def load(self, name: str, path: str) -> None:
        """Load an adapter that lies in one of the folders, under a name of its own.

        Raises:
            InvalidArgument: The name is none, or the path lies elsewhere.
            AdapterNotFound: No adapter lies there.
            TrunnionError: The engine refuses it.
        """
        inside = await asyncio.to_thread(self._folders.confine, path)
        await self.shelf.add(check_name(name), inside)
        self._removed.discard(name)

    async def unload(self, name: str) -> None:
        """Forget an adapter; its folder is looked at again only once it was away. Raises :class:`AdapterNotFound`."""
        await self.shelf.remove(name)
        self._removed.add(name)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self.look()
