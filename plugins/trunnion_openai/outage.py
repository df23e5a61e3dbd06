"""Tell an outage from an endpoint that has too much to do, and come back from it to what was proven good.

Both lose attempts: connections break, or a gateway answers 503. But an endpoint that has too much still answers what it
took, so that something comes every now and then. Where nothing came for twice as long as an answer takes, there was
nobody: what the losses seem to have taught of the best number in flight is then forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_APART: Final = 20.0
"""Seconds after an outage in which losses are no further one: else an endpoint that drops what is too much for it, and
is slow besides, would be sent the same again and again."""
_BETWEEN: Final = 5.0
"""Seconds between two reductions while nothing at all is answered: it may be out, or have too much and hang."""
_GAP: Final = 2.0
_NEW: Final = 0.1


@dataclass(slots=True)
class _Before:
    """Hold what the search knew before the first losses, and the window that began with them."""

    search: Mapping[str, Any]
    best: int
    window: int
    back: bool = False
    left: int = 0


class Outage:
    """Follow answers and losses. Times are those of the caller's clock."""

    __slots__ = ("_before", "_calm", "_heard", "_pace", "_reduced")

    def __init__(self, now: float) -> None:
        self._heard = now
        self._pace = 0.0
        self._reduced: float | None = None
        self._calm = -math.inf
        self._before: _Before | None = None

    @property
    def back(self) -> bool:
        """Tell whether the endpoint answers again and is not yet given all that it had."""
        return self._before is not None and self._before.back

    def answered(self, window: int, seconds: float, now: float, limit: int) -> int | None:
        """Take note of an answer to an attempt of that window; returns another limit where the endpoint is back."""
        gap, self._heard = now - self._heard, now
        waited = gap > _GAP * self._pace
        self._pace += (seconds - self._pace) * (_NEW if self._pace else 1.0)
        self._reduced = None
        before = self._before
        if before is None or before.back or not waited or window < before.window:
            return None
        before.back = True
        before.left = max(limit, before.best // 2)
        return before.left

    def round_over(self) -> Mapping[str, Any] | None:
        """Count an answer since the endpoint is back; after as many as are in flight, return the search of before."""
        before = self._before
        assert before is not None
        before.left -= 1
        return before.search if before.left <= 0 else None

    def may_reduce(self, now: float) -> bool:
        """Tell whether losses are to be taken for too much once more: where nothing was answered in between, rarely."""
        if self._before is not None:
            self._before.back = False
        return self._reduced is None or now - self._reduced >= _BETWEEN

    def reduced(self, now: float, search: Mapping[str, Any], best: int, window: int) -> None:
        """Take note that less is sent because of losses; ``search`` and ``best``: from before."""
        self._reduced = now
        if self._before is None and now >= self._calm:
            self._before = _Before(search, best, window)

    def restored(self, now: float) -> None:
        """Take note that the search is what it was."""
        self._before = None
        self._calm = now + _APART

    def none(self) -> None:
        """Take note that it was no outage: the endpoint answers, or says itself that it has too much."""
        self._before = None
