"""Tell an engine that cannot be reached from rows that fail for reasons of their own."""

from __future__ import annotations

from typing import Final

from trunnion.errors import EngineDead, Overloaded, Transient, TrunnionError

UNREACHABLE: Final = "engine_unreachable"
"""Code of the error that ends a job whose engine cannot be reached."""
_LEAST: Final = 10
"""Rows at least: few that fail together may have something in common."""
_CODE: Final = "unavailable"


class Unreachable:
    """Count the rows that failed one after the other because nobody answered them."""

    def __init__(self, limit: int | None) -> None:
        """``limit``: how many may; None for any number."""
        self._limit = limit
        self._in_a_row = 0
        self._in_flight = 0

    def answered(self) -> None:
        """Take note that the engine answered, if only to refuse."""
        self._in_a_row = 0

    def failed(self, error: TrunnionError, in_flight: int) -> EngineDead | None:
        """Take note of a row that failed; returns what ends the job once it is the engine that is broken.

        Args:
            error: The row's error, after all its repetitions.
            in_flight: Rows that were begun and are not done, this one included.
        """
        if not _unreached(error):
            if isinstance(error, Overloaded) or "status" in error.details:
                self.answered()
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
