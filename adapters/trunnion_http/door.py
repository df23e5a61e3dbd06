"""Admit a bounded number of requests; refuse further ones at once, and say when to come back."""

from __future__ import annotations

import time
from typing import Final

from trunnion.errors import Overloaded

_NEW: Final = 0.1
"""Weight of a new request in the mean time that one takes."""


class Door:
    """Count the requests inside."""

    __slots__ = ("_limit", "_mean", "inside", "refused")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mean = 0.0
        self.inside = 0
        self.refused = 0

    def enter(self) -> float:
        """Let a request in; returns what :meth:`leave` wants to know.

        Raises:
            Overloaded: As many are inside as may be. ``retry_after``: when one of them is likely to have left.
        """
        if self.inside >= self._limit:
            self.refused += 1
            wait = max(0.1, self._mean / self._limit)
            message = f"the server is full: {self._limit} requests are running or waiting here; try again in a moment"
            raise Overloaded(message, retry_after=wait)
        self.inside += 1
        return time.monotonic()

    def leave(self, entered: float) -> None:
        """Let it out."""
        self.inside -= 1
        took = time.monotonic() - entered
        self._mean = took if not self._mean else self._mean + _NEW * (took - self._mean)
