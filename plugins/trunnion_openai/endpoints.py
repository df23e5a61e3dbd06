"""Spread requests over several addresses, and leave alone for a while those that fail."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from typing import Any

from trunnion.errors import TrunnionError

from .config import OpenAIConfig
from .retry import backoff

logger = logging.getLogger("trunnion.openai")


class Endpoint:
    """Hold one address: its client, what is in flight there, and until when it is left alone."""

    __slots__ = ("client", "cool_until", "in_flight", "turn", "url")

    def __init__(self, url: str, client: Any) -> None:
        self.url = url
        self.client = client
        self.in_flight = 0
        self.cool_until = 0.0
        self.turn = 0

    def rest(self, seconds: float) -> None:
        """Leave the address alone for so many seconds."""
        self.cool_until = max(self.cool_until, time.monotonic() + seconds)


class Endpoints:
    """Choose an address for each request: the one with the least in flight, the longest unused of equals."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.all = tuple(endpoints)
        self._turns = itertools.count(1)

    def pick(self, avoid: frozenset[str] = frozenset()) -> Endpoint:
        """Return an address; one of those to avoid, or one that rests, only where there is no other."""
        if len(self.all) == 1:
            return self.all[0]
        now = time.monotonic()
        chosen = min(self.all, key=lambda e: (max(0.0, e.cool_until - now), e.url in avoid, e.in_flight, e.turn))
        chosen.turn = next(self._turns)
        return chosen

    def fresh(self, tried: frozenset[str]) -> bool:
        """Tell whether there is an address that was not tried and does not rest."""
        now = time.monotonic()
        return any(e.url not in tried and e.cool_until <= now for e in self.all)


class Attempts:
    """Count the attempts of one request, choose where each goes, and wait between them."""

    __slots__ = ("_config", "_deadline", "_endpoints", "_retries", "_tried")

    def __init__(self, config: OpenAIConfig, endpoints: Endpoints, deadline: float | None) -> None:
        """``deadline``: seconds since the epoch, beyond which there is no use in waiting."""
        self._config = config
        self._endpoints = endpoints
        self._deadline = deadline
        self._tried: frozenset[str] = frozenset()
        self._retries = 0

    def next(self) -> Endpoint:
        """Return the address of the next attempt."""
        return self._endpoints.pick(self._tried)

    def wait(self, endpoint: Endpoint, error: TrunnionError, *, lost: bool) -> float:
        """Return the seconds to wait before the next attempt. Raises the error if there is to be none."""
        config = self._config
        self._tried |= {endpoint.url}
        several = len(self._endpoints.all) > 1
        if several and (lost or error.http_status in (429, 502, 503)):
            endpoint.rest(config.cool_down if error.retry_after is None else error.retry_after)
            logger.info("%s is left alone for a while: %s", endpoint.url, error)
        if not error.retryable:
            raise error
        elsewhere = several and self._endpoints.fresh(self._tried)
        if lost and elsewhere:
            return 0.0
        if self._retries >= config.max_retries:
            raise error
        asked = error.retry_after
        seconds = 0.0 if elsewhere else backoff(config, self._retries, asked)
        self._retries += 1
        if not elsewhere and asked is not None and asked > config.max_retry_wait:
            raise error
        if self._deadline is not None and time.time() + seconds >= self._deadline:
            raise error
        return seconds
