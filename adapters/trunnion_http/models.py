"""Define what the HTTP surface serves: model handles, and the directory that finds one by the name a client sends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from trunnion.engine import Embedding, EngineInfo
from trunnion.errors import ConfigError, ModelNotFound
from trunnion.events import GenerateEvent
from trunnion.requests import GenerateRequest, Prompt


@runtime_checkable
class ModelHandle(Protocol):
    """Reach one served model: in this process, or behind a deployment handle."""

    @property
    def name(self) -> str:
        """Return the name clients send as ``model``."""
        ...

    @property
    def info(self) -> EngineInfo | None:
        """Return the engine's description; None while it is not known."""
        ...

    @property
    def adapters(self) -> Collection[str]:
        """Return the names of the LoRA adapters that are loaded now; membership is tested per request."""
        ...

    @property
    def ready(self) -> bool:
        """Tell whether requests are answered now."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the events of one request, by the contract of :meth:`trunnion.engine.Engine.generate`."""
        ...

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order. Raises :class:`UnsupportedFeature` if the model makes none."""
        ...

    async def check_health(self) -> None:
        """Return if the model works. Raises a :class:`TrunnionError` otherwise."""
        ...


class ModelDirectory:
    """Find models and adapters by name; models come and go while the app runs.

    A client names a model, an adapter (``"shouting"``) or both (``"base:shouting"``).
    """

    def __init__(self, models: Mapping[str, ModelHandle] | Iterable[ModelHandle] = ()) -> None:
        named = models if isinstance(models, Mapping) else {handle.name: handle for handle in models}
        self._handles: dict[str, ModelHandle] = {}
        for name, handle in named.items():
            self.add(handle, name=name)

    def __iter__(self) -> Iterator[tuple[str, ModelHandle]]:
        """Iterate over the served names and their handles."""
        return iter(tuple(self._handles.items()))

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self._handles)

    def add(self, handle: ModelHandle, *, name: str | None = None) -> None:
        """Serve a model, under its own name unless another is given. Raises :class:`ConfigError` if that is taken."""
        name = name or handle.name
        if not name:
            raise ConfigError("a served model needs a name", param="name")
        if self._handles.get(name, handle) is not handle:
            raise ConfigError(f"two models are named {name!r}; give one of them another name", param="name")
        self._handles[name] = handle

    def remove(self, name: str) -> None:
        """Stop serving a model; requests in flight go on."""
        self._handles.pop(name, None)

    def resolve(self, name: str | None) -> tuple[ModelHandle, str | None]:
        """Return the handle and the adapter (None for the base model) that a name stands for.

        Raises:
            ModelNotFound: Nothing of that name is served, or several adapters are.
        """
        if name is None:
            if len(self._handles) == 1:
                return next(iter(self._handles.values())), None
            raise ModelNotFound(f"you must say which model; served here: {self._served()}", param="model")
        handle = self._handles.get(name)
        if handle is not None:
            return handle, None
        holders = [(base, handle) for base, handle in self._handles.items() if name in handle.adapters]
        if len(holders) == 1:
            return holders[0][1], name
        if holders:
            full = ", ".join(f"{base}:{name}" for base, _ in holders)
            raise ModelNotFound(f"several models have an adapter {name!r}; say which: {full}", param="model")
        for base, handle in self._handles.items():
            if name.startswith(f"{base}:") and name[len(base) + 1 :] in handle.adapters:
                return handle, name[len(base) + 1 :]
        raise ModelNotFound(f"the model {name!r} is not served here; served: {self._served()}", param="model")

    def names(self) -> list[tuple[str, ModelHandle, str | None]]:
        """List what clients may send: name, handle and adapter (None for the model itself)."""
        listed: list[tuple[str, ModelHandle, str | None]] = []
        for base, handle in self._handles.items():
            listed.append((base, handle, None))
            for adapter in handle.adapters:
                shared = adapter in self._handles or any(
                    adapter in other.adapters for other in self._handles.values() if other is not handle
                )
                listed.append((f"{base}:{adapter}" if shared else adapter, handle, adapter))
        return listed

    def _served(self) -> str:
        return ", ".join(name for name, _, _ in self.names()) or "none"
