"""Decide which adapter the next step is for: llama.cpp applies one to a whole batch."""

from __future__ import annotations

from collections.abc import Collection


class Turns:
    """Give each of those who have work a turn of so many steps, whoever waited longest first.

    A sequence that waits keeps its place in the KV cache, so a turn costs the switch alone.
    """

    def __init__(self, steps: int) -> None:
        """Start with nobody's turn."""
        self._steps = steps
        self._left = 0
        self._current: int | None = None
        self._clock = 0
        self._last: dict[int | None, int] = {}

    def next(self, present: Collection[int | None]) -> int | None:
        """Return the key (None is the base model) of the step to come, and count it; ``present`` is not empty."""
        others = [key for key in present if key != self._current]
        if self._current not in present or (others and not self._left):
            self._current = min(others, key=lambda key: self._last.get(key, -1))
            self._left = self._steps
        self._left = max(0, self._left - 1)
        self._clock += 1
        self._last[self._current] = self._clock
        return self._current

    def forget(self, key: int) -> None:
        """Drop what is kept of a key that will not come back."""
        self._last.pop(key, None)
