"""Decide how long to wait before a request is sent again."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from .config import OpenAIConfig

RESERVE: Final = 10
"""Repetitions that are allowed before any request has earned one."""
_SAVED: Final = 1000
"""Requests whose share of repetitions is kept for later."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, in any of its forms; None if it is absent or not valid.

    ``retry-after-ms`` is OpenAI's; the header itself holds seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    precise = _seconds(headers.get("retry-after-ms"))
    if precise is not None:
        return precise / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what the endpoint itself says of a repetition (``x-should-retry``); None if it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())


def backoff(config: OpenAIConfig, attempt: int, asked: float | None) -> float:
    """Return the wait before repetition number ``attempt`` (from 0): what was asked for, or doubling, less a jitter."""
    if asked is not None:
        return asked * (1 + 0.1 * random.random())  # noqa: S311 - never less than was asked for
    ceiling = min(config.retry_backoff * 2.0**attempt, config.max_retry_wait)
    return ceiling * (0.5 + 0.5 * random.random())  # noqa: S311 - spreads clients, keeps no secret


class RetryBudget:
    """Allow repetitions as a share of the requests, so that an outage does not multiply the load."""

    def __init__(self, share: float) -> None:
        """``share``: repetitions per request; a few more are allowed at the start, and kept for later."""
        self._share = share
        self._most = RESERVE + _SAVED * share if share else 0.0
        self._left = float(RESERVE) if share else 0.0

    def earn(self) -> None:
        """Take note of a request."""
        self._left = min(self._left + self._share, self._most)

    def spend(self) -> bool:
        """Take one repetition from the budget; False if it is used up."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
