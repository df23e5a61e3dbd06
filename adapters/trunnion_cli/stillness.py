"""Say, while no row is finished, what is waited for and what would end the wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .console import say
from .ticker import Ticker

if TYPE_CHECKING:
    from trunnion_batch.recovery import Recovery

SECONDS: Final = 60.0
"""Seconds without a finished row before it is said; then after twice as long, and so on."""


def limits(recovery: Recovery) -> str:
    """Return what ends the wait for an engine or a row, and with which flags."""
    stall, row = recovery.stall_timeout, recovery.row_timeout
    if stall is None and row is None:
        return (
            "no limit of time is set, so a request that hangs is waited for for ever: --stall-timeout (stall_timeout) "
            "replaces an engine without a sign of life, --row-timeout (row_timeout) ends a row"
        )
    engine = (
        "an engine that hangs is waited for (--stall-timeout)"
        if stall is None
        else f"an engine without a sign of life for {stall:g} s is replaced (stall_timeout)"
    )
    return f"{engine}; a row may take " + (
        "any time (--row-timeout)" if row is None else f"{row:g} s in the engine (row_timeout)"
    )


class Stillness:
    """Watch a count on a thread of its own, and say so when it stands still. A context manager.

    Args:
        rows: Returns how many rows are finished.
        waits: Returns what is waited for; "" if nobody needs to know.
        limits: What ends the wait, from :func:`limits`.
    """

    def __init__(self, rows: Callable[[], int], waits: Callable[[], str], limits: str) -> None:
        self._rows = rows
        self._waits = waits
        self._limits = limits
        self._due = SECONDS
        self._seen, self._since = 0, 0.0
        self._ticker = Ticker(self._look, SECONDS / 12, "trunnion-stillness")

    def start(self) -> None:
        """Begin to watch."""
        self._seen, self._since = self._rows(), time.monotonic()
        self._ticker.start()

    def stop(self) -> None:
        """End it."""
        self._ticker.stop()

    def _look(self) -> None:
        now, rows = time.monotonic(), self._rows()
        if rows != self._seen:
            self._seen, self._since, self._due = rows, now, SECONDS
        elif now - self._since >= self._due:
            self._due *= 2
            waits = self._waits()
            if waits:
                say(f"no row was finished for {now - self._since:.0f} s; waiting for {waits}; {self._limits}")
