"""Estimate how long the rows that are left will take, by those that this run answered itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunnion_batch.account import Account


class Pace:
    """Look at an account every now and then.

    The clock starts with the work: not while engines start, nor while a journal answers, which tells nothing of how
    fast the engines are.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._replayed = 0

    def look(self, live: Account, in_flight: int, now: float | None = None) -> None:
        """Take note of how far it is.

        Args:
            live: Counts the rows that were answered.
            in_flight: Rows that are being answered.
            now: The time, from :func:`time.monotonic`; None: now.
        """
        if not live.new_rows and (not in_flight or live.replayed > self._replayed):
            self._began = time.monotonic() if now is None else now
        self._replayed = live.replayed

    def left(self, live: Account, total: int | None, now: float | None = None) -> str | None:
        """Return the time that is left, as h:mm:ss; None where nothing is known about it."""
        seconds = (time.monotonic() if now is None else now) - self._began
        if total is None or not live.new_rows or seconds <= 0:
            return None
        rest = int(max(0, total - live.rows) * seconds / live.new_rows + 0.5)
        return f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
