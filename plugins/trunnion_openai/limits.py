"""Keep to limits per minute: those of the settings, and those that an endpoint tells in ``x-ratelimit-*`` headers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .config import OpenAIConfig

_MINUTE: Final = 60.0
_BURST: Final = 1.0
"""Seconds' worth of tokens that may be sent at once. Requests go one by one."""
UNKNOWN_COMPLETION: Final = 256
"""Completion tokens that a request is estimated to take where it sets no maximum."""
_PIECE: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Bucket:
    """Give out an amount per minute. Amounts are taken at once; who takes is told how long to wait."""

    def __init__(self, per_minute: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``burst``: what is given out without a wait after a pause."""
        self._rate = per_minute / _MINUTE
        self._burst = burst
        self._clock = clock
        self._level = burst
        self._at = clock()

    def take(self, amount: float) -> float:
        """Take an amount, and return the seconds to wait before it is used. Negative amounts are given back."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._level / self._rate)


class Limits:
    """Hold the limits of the settings, for all requests of one engine."""

    def __init__(self, config: OpenAIConfig, clock: Callable[[], float] = time.monotonic) -> None:
        share, requests, tokens = config.limit_share, config.requests_per_minute, config.tokens_per_minute
        self._requests = None if requests is None else Bucket(requests * share, 1.0, clock)
        per_burst = _BURST / _MINUTE
        self._tokens = None if tokens is None else Bucket(tokens * share, tokens * share * per_burst, clock)

    def take(self, tokens: float) -> float:
        """Take a request of so many tokens; returns the seconds to wait before it is sent."""
        wait = 0.0 if self._requests is None else self._requests.take(1.0)
        return wait if self._tokens is None else max(wait, self._tokens.take(tokens))

    def give_back(self, requests: float, tokens: float) -> None:
        """Give back what was taken and not used; negative numbers were used beyond what was taken."""
        if self._requests is not None and requests:
            self._requests.take(-requests)
        if self._tokens is not None and tokens:
            self._tokens.take(-tokens)


class Spent(NamedTuple):
    """Hold what had been spent at an endpoint when a request was sent: requests, and tokens."""

    requests: float
    tokens: float


class Allowance:
    """Follow what an endpoint says is left of one of its limits, until it is reset."""

    __slots__ = ("_bound", "_reset", "spent")

    def __init__(self) -> None:
        self.spent = 0.0
        self._bound = float("inf")
        self._reset = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until so much may be spent."""
        return max(0.0, self._reset - now) if self.spent + amount > self._bound else 0.0

    def heard(self, spent: float, left: float, reset: float) -> None:
        """Take note that so much was left after ``spent`` had been spent, until the moment ``reset``."""
        self._bound, self._reset = spent + left, reset


class Quota:
    """Follow the limits that one endpoint tells. Times are those of the clock."""

    __slots__ = ("_clock", "_longest", "_requests", "_share", "_tokens")

    def __init__(self, share: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``share``: part of what is left that is ours. A reset further away than ``longest`` is not waited for."""
        self._share = share
        self._longest = longest
        self._clock = clock
        self._requests = Allowance()
        self._tokens = Allowance()

    def wait(self, tokens: float) -> float:
        """Return the seconds until a request of so many tokens may be sent."""
        now = self._clock()
        return max(self._requests.wait(1.0, now), self._tokens.wait(tokens, now))

    def spend(self, tokens: float) -> Spent:
        """Take note that a request is sent."""
        self._requests.spent += 1.0
        self._tokens.spent += tokens
        return Spent(self._requests.spent, self._tokens.spent)

    def heard(self, spent: Spent, headers: Mapping[str, str]) -> None:
        """Read the headers of an answer; what was sent after its request counts against what they say is left."""
        self._one(self._requests, spent.requests, headers, "requests")
        self._one(self._tokens, spent.tokens, headers, "tokens")

    def _one(self, allowance: Allowance, spent: float, headers: Mapping[str, str], kind: str) -> None:
        left, reset = headers.get(f"x-ratelimit-remaining-{kind}"), headers.get(f"x-ratelimit-reset-{kind}")
        if left is None or reset is None:
            return
        seconds = duration(reset)
        try:
            remaining = float(left)
        except ValueError:
            return
        if seconds is not None and seconds <= self._longest:
            allowance.heard(spent, max(0.0, remaining) * self._share, self._clock() + seconds)


def duration(text: str) -> float | None:
    """Return the seconds of a duration as OpenAI writes it ("6m0s", "20ms"), or of a bare number; None for others."""
    text = text.strip()
    pieces = _PIECE.findall(text)
    if pieces and "".join(number + unit for number, unit in pieces) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in pieces)
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def estimate(body: Any) -> float:
    """Return the tokens that a request may take: four characters each, and as many more as it allows."""
    if not isinstance(body, Mapping):
        return float(UNKNOWN_COMPLETION)
    prompt: Any = [body.get(name) for name in ("messages", "prompt", "input")]
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if most is None:
        most = 0 if body.get("input") is not None else UNKNOWN_COMPLETION
    choices = body.get("n") or 1
    made = most * choices if isinstance(most, (int, float)) and isinstance(choices, int) else UNKNOWN_COMPLETION
    return _length(prompt) + made


def _length(value: Any) -> float:
    """Return the tokens of a prompt: numbers are tokens, texts have one for every four characters."""
    if isinstance(value, str):
        return len(value) / 4 if not value.startswith("data:") else 0.0
    if isinstance(value, Mapping):
        return sum(_length(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return float(len(value)) if value and isinstance(value[0], int) else sum(_length(item) for item in value)
    return 0.0
