"""Count requests and tokens of each key, and refuse what exceeds its limits."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from trunnion.errors import Overloaded
from trunnion.hooks import RequestSummary
from trunnion.requests import GenerateRequest

from .config import KeyLimits, RateLimitsConfig

ANONYMOUS: Final = "anonymous"
_MINUTE: Final = 60.0
_KEYS: Final = 10_000
"""Keys that are remembered; the one that did not come for longest is forgotten first."""


class _Bucket:
    """Hold what a key may still do: filled continuously, up to one minute's worth."""

    __slots__ = ("_filled", "left", "per_minute")

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self.left = per_minute
        self._filled = now

    def fill(self, now: float) -> None:
        self.left = min(self.per_minute, self.left + (now - self._filled) * self.per_minute / _MINUTE)
        self._filled = now

    def seconds_until(self, wanted: float) -> float:
        """Return the seconds until so much is left; 0 if it is now."""
        return max(0.0, (min(wanted, self.per_minute) - self.left) * _MINUTE / self.per_minute)


class RateLimits:
    """Be the hooks. ``clock`` tells seconds."""

    def __init__(self, config: RateLimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[_Bucket | None, _Bucket | None]] = OrderedDict()

    def before_request(self, request: GenerateRequest) -> None:
        """Admit a request, or refuse it as :class:`Overloaded` with the seconds after which it would be admitted."""
        name = request.tenant or ANONYMOUS
        requests, tokens = self._of(name)
        waits = []
        if requests is not None and (wait := requests.seconds_until(1.0)):
            waits.append((wait, f"{requests.per_minute:g} requests per minute"))
        if tokens is not None and tokens.left <= 0:
            waits.append((tokens.seconds_until(1.0), f"{tokens.per_minute:g} tokens per minute"))
        if waits:
            wait, limit = max(waits)
            message = f"this key's limit of {limit} is reached; try again in {wait:.1f} s"
            raise Overloaded(message, code="rate_limit_exceeded", retry_after=wait)
        if requests is not None:
            requests.left -= 1

    def after_response(self, summary: RequestSummary) -> None:
        """Count the tokens of a request that ended well."""
        usage = summary.usage
        tokens = self._of(summary.request.tenant or ANONYMOUS)[1]
        if tokens is not None and usage is not None:
            tokens.left -= usage.prompt_tokens + usage.completion_tokens

    on_error = after_response

    def _of(self, name: str) -> tuple[_Bucket | None, _Bucket | None]:
        now = self._clock()
        held = self._buckets.get(name)
        if held is None:
            limits: KeyLimits = self._config.keys.get(name, self._config)
            requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
            held = (
                None if requests is None else _Bucket(requests, now),
                None if tokens is None else _Bucket(tokens, now),
            )
            self._buckets[name] = held
            if len(self._buckets) > _KEYS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        for bucket in held:
            if bucket is not None:
                bucket.fill(now)
        return held


class _Unlimited:
    """Have no methods: the pipeline then does not call hooks at all."""


def rate_limits(config: RateLimitsConfig) -> RateLimits | _Unlimited:
    """Return the hooks that a configuration asks for."""
    return RateLimits(config) if config.limited else _Unlimited()
