"""Decide whose turn it is: one adapter (or the base model) at a time, none starved."""

from __future__ import annotations

from collections.abc import Collection


class Turns:
    """Keep the turn of whoever runs for at most ``limit`` steps while others wait, then give it to who waits longest.

    Requests that lose the turn keep their place in the KV cache, so a turn costs nothing but the switch.
    """

    __slots__ = ("_clock", "_current", "_last", "_limit", "_steps")

    def __init__(self, limit: int) -> None:
        """Start with nobody's turn; ``limit`` is in steps."""
        self._limit = limit
        self._current: str | None = ""  # no adapter has an empty name
        self._steps = 0
        self._clock = 0
        self._last: dict[str | None, int] = {}

    def order(self, present: Collection[str | None]) -> list[str | None]:
        """Return who has something to run in the order they may try: whose turn it is, then who waited longest."""
        if len(present) == 1:
            return list(present)
        waiting = sorted(present, key=lambda key: self._last.get(key, 0))
        if self._current in present:
            waiting.remove(self._current)
            waiting.insert(0 if self._steps < self._limit else len(waiting), self._current)
        return waiting

    def ran(self, key: str | None) -> None:
        """Count a step of ``key``."""
        self._clock += 1
        if key != self._current:
            self._current, self._steps = key, 0
        self._steps += 1
        self._last[key] = self._clock

    def forget(self, key: str | None) -> None:
        """Drop what is kept of a key that will not come back."""
        self._last.pop(key, None)
