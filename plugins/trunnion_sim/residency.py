"""Keep the LoRA adapters that lie in memory: a bounded number, the least recently used one leaves."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable


class Residency:
    """Load adapters when a job needs them; each load takes a while."""

    def __init__(self, limit: int | None, load_seconds: float, loaded: Iterable[str] = ()) -> None:
        """Begin with ``loaded``, as many of them as there is room for."""
        self._limit = limit
        self._load_seconds = load_seconds
        self._pins: Counter[str] = Counter()
        self._ready: OrderedDict[str, float] = OrderedDict.fromkeys(list(loaded)[:limit], 0.0)
        self.loads = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return the resident adapters, those that still load included."""
        return tuple(self._ready)

    def ready_at(self, name: str, now: float) -> float | None:
        """Return when the adapter is there, loading it if need be; None while every place is in use."""
        due = self._ready.get(name)
        if due is None:
            if self._limit is not None and len(self._ready) >= self._limit and not self._evict(now):
                return None
            due = now + self._load_seconds
            self._ready[name] = due
            self.loads += 1
        return due

    def _evict(self, now: float) -> bool:
        for name, due in self._ready.items():
            if due <= now and name not in self._pins:  # one that still loads is awaited by somebody
                del self._ready[name]
                return True
        return False

    def pin(self, name: str) -> None:
        """Keep the adapter while a job runs on it."""
        self._pins[name] += 1
        if name in self._ready:
            self._ready.move_to_end(name)

    def unpin(self, name: str) -> None:
        """Let go of it."""
        self._pins[name] -= 1
        if not self._pins[name]:
            del self._pins[name]

    def in_use(self, name: str) -> bool:
        """Tell whether a job runs on it."""
        return self._pins[name] > 0

    def drop(self, name: str) -> None:
        """Forget the adapter."""
        self._ready.pop(name, None)
