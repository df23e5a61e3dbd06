"""Tell an engine that cannot be reached from rows that fail for reasons of their own."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

from trunnion.errors import EngineDead, Overloaded, Transient, TrunnionError

logger = logging.getLogger("trunnion.batch")

UNREACHABLE: Final = "engine_unreachable"
"""Code of the error that ends a job whose engine cannot be reached."""
_LEAST: Final = 10
"""Rows at least: few that fail together may have something in common."""
_CODE: Final = "unavailable"


@dataclass(slots=True)
class Losses:
    """Hold one row's attempts that failed: how many count, and since when nobody answered it."""

    counted: int = 0
    began: float | None = None
    since: float = 0.0
    waiting: bool = False


class Unreachable:
    """Follow the rows that fail because nobody answers them: how long they go on, and when the job is to end."""

    def __init__(self, limit: int | None, patience: float) -> None:
        """Nothing has been heard yet.

        Args:
            limit: How many rows may fail one after the other; None for any number.
            patience: Seconds for which rows go on being repeated where an engine that answered before is gone.
        """
        self._limit = limit
        self._patience = patience
        self._in_a_row = 0
        self._in_flight = 0
        self._heard: float | None = None
        self._out: float | None = None

    def answered(self) -> None:
        """Take note that the engine answered, if only to refuse."""
        self._in_a_row = 0
        self._heard = time.monotonic()
        if self._out is not None:
            logger.warning("the engine answers again, after %.0f s", self._heard - self._out)
            self._out = None

    def repeats(self, losses: Losses, error: TrunnionError, retries: int) -> bool:
        """Tell whether a row whose attempt failed is asked again, and take note of it.

        An attempt counts, unless the row has none left while an engine that answered before answers nobody: the row
        then waits for its return, and has all of its attempts again after it. Where others are answered meanwhile, the
        row is what fails, unless it was not even taken: an endpoint that is being stopped answers what it has begun.
        """
        lost = _unreached(error)
        if not lost and (isinstance(error, Overloaded) or "status" in error.details):
            self.answered()  # if only to refuse
        if not error.retryable:
            return False
        now = time.monotonic()
        if losses.began is None:
            losses.began = losses.since = now
        elif losses.waiting and self._heard is not None and self._heard > losses.since:
            losses.counted, losses.since, losses.waiting = 0, now, False
        if losses.counted < retries:
            losses.counted += 1
            return True
        if not (retries and lost and self._heard is not None):
            return False
        silent = self._heard < losses.since
        if not silent and error.details.get("connected") is not False:
            return False
        if now - losses.began >= self._patience:
            return False
        losses.waiting = True
        if silent and self._out is None:
            self._out = self._heard
            logger.warning(
                "the engine cannot be reached (%s): rows wait for it, %g s at most (outage_timeout)",
                error,
                self._patience,
            )
        return True

    def failed(self, error: TrunnionError, in_flight: int) -> EngineDead | None:
        """Take note of a row that failed; returns what ends the job once it is the engine that is broken.

        Args:
            error: The row's error, after all its repetitions.
            in_flight: Rows that were begun and are not done, this one included.
        """
        if not _unreached(error):
            return None
        self._in_flight = max(self._in_flight, in_flight) if self._in_a_row else in_flight
        self._in_a_row += 1
        if self._limit is None or self._in_a_row < min(self._limit, max(self._in_flight, _LEAST)):
            return None
        message = (
            f"{self._in_a_row} rows failed one after the other because the engine cannot be reached, and none was "
            f"answered in between; the last: {error}"
        )
        return EngineDead(message, code=UNREACHABLE, param="max_unreachable_rows", retryable=False)


def _unreached(error: TrunnionError) -> bool:
    """Tell whether nobody answered. What names a field, such as an image that cannot be fetched, is the row's."""
    lost = isinstance(error, Transient) and not isinstance(error, EngineDead)
    return lost and error.retryable and error.code == _CODE and error.param is None
