"""Hold the LoRA adapters of a model: which are there, who uses them, and where the library has them."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunnion import AdapterRef
from trunnion.errors import AdapterNotFound, InvalidArgument

from ._llama import LibraryError, Model


@dataclass(slots=True, kw_only=True, eq=False)
class Adapter:
    """Hold a loaded adapter; ``key`` is its number, used once and never again."""

    name: str
    path: str
    key: int
    users: int = 0
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def release(self) -> None:
        """Count a request less; whoever waits for the last one is told."""
        self.users -= 1
        if not self.users:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    async def unused(self) -> None:
        """Wait for the last request."""
        if self.users:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


class AdapterTable:
    """Find adapters by name, on the event loop; by key, from any thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._adapters: dict[str, Adapter] = {}
        self._handles: dict[int, Any] = {}
        self._keys = itertools.count(1)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names in the order they were loaded."""
        return tuple(self._adapters)

    def refs(self) -> list[AdapterRef]:
        """Return names and paths."""
        return [AdapterRef(name=one.name, path=one.path) for one in self._adapters.values()]

    def load(self, model: Model, name: str, path: str) -> Adapter:
        """Load an adapter; it is not in the table yet. Blocking.

        Raises:
            AdapterNotFound: The path holds none.
            InvalidArgument: It does not fit the model.
        """
        with _gguf(model, name, Path(path).expanduser()) as file:
            try:
                handle = model.load_adapter(str(file))
            except LibraryError as error:
                message = f"adapter {name!r} at {path} does not fit the model: {error}"
                raise InvalidArgument(message, param="adapter") from error
        key = next(self._keys)
        self._handles[key] = handle
        return Adapter(name=name, path=path, key=key)

    def add(self, adapter: Adapter) -> Adapter | None:
        """Put a loaded adapter into the table; return the one it replaces."""
        held = self._adapters.get(adapter.name)
        self._adapters[adapter.name] = adapter
        return held

    def find(self, name: str) -> Adapter | None:
        """Return an adapter, or None."""
        return self._adapters.get(name)

    def get(self, name: str) -> Adapter:
        """Return an adapter. Raises :class:`AdapterNotFound` that lists what is loaded."""
        adapter = self._adapters.get(name)
        if adapter is None:
            loaded = ", ".join(self._adapters) or "none"
            raise AdapterNotFound(f"no adapter {name!r} is loaded; loaded: {loaded}", param="adapter")
        return adapter

    def remove(self, name: str) -> Adapter:
        """Take an adapter out and return it. Raises :class:`AdapterNotFound`."""
        adapter = self.get(name)
        del self._adapters[name]
        return adapter

    def handle(self, key: int | None) -> Any:
        """Return the library's adapter for a key; None for the base model."""
        return None if key is None else self._handles[key]

    def free(self, model: Model, adapter: Adapter) -> None:
        """Free what the library holds of an adapter that nothing uses."""
        model.free_adapter(self._handles.pop(adapter.key))


@contextmanager
def _gguf(model: Model, name: str, path: Path) -> Iterator[Path]:
    """Yield an adapter's GGUF file: the path itself, or one made of a folder in PEFT's format for the time being."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise AdapterNotFound(f"adapter {name!r}: there is nothing at {path}", param="adapter")
    from .convert.adapter import Shape, convert_adapter
    from .convert.problem import ConversionError

    with tempfile.TemporaryDirectory(prefix="trunnion-llamacpp-") as folder:
        file = Path(folder) / "adapter.gguf"
        try:
            convert_adapter(path, file, Shape.of_metadata(model.meta))
        except FileNotFoundError as error:
            message = f"adapter {name!r}: {path} holds neither GGUF nor a PEFT adapter: {error}"
            raise AdapterNotFound(message, param="adapter") from error
        except (ConversionError, OSError, KeyError, TypeError, ValueError) as error:
            said = f"{type(error).__name__}: {error}" if isinstance(error, (KeyError, TypeError)) else error
            raise InvalidArgument(f"adapter {name!r} at {path} cannot be read: {said}", param="adapter") from error
        yield file
