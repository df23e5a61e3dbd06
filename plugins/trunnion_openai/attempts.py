"""Follow the attempts of one request: where each goes, when it may be sent, and whether there is to be another."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

from trunnion.errors import Overloaded, Transient, TrunnionError

from .adaptive import Began, Verdict
from .config import OpenAIConfig
from .endpoints import Endpoint, Endpoints, send_turn
from .gate import Gate
from .limits import Limits, Spent
from .retry import RetryBudget, backoff

logger = logging.getLogger("trunnion.openai")
_LESSONS: Final = 8
"""Refusals of one request that are not counted because the engine learnt from them to send less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Hold what all requests of one engine share."""

    config: OpenAIConfig
    endpoints: Endpoints
    gate: Gate
    budget: RetryBudget
    limits: Limits


class Attempts:
    """Count the attempts of one request, choose where each goes, and say how long to wait between them."""

    __slots__ = ("_began", "_deadline", "_lessons", "_retries", "_shared", "_tokens", "_tried", "spent")

    def __init__(self, shared: Shared, deadline: float | None, tokens: float = 0.0) -> None:
        """Begin a request.

        Args:
            shared: What all requests share.
            deadline: Seconds since the epoch, beyond which there is no use in waiting.
            tokens: What the request is estimated to take.
        """
        self._shared = shared
        self._deadline = deadline
        self._tokens = tokens
        self._tried: frozenset[str] = frozenset()
        self._retries = 0
        self._lessons = 0
        self._began: Began | None = None
        self.spent = Spent(0.0, 0.0)
        shared.budget.earn()

    async def next(self) -> Endpoint:
        """Return the address of the next attempt once it may be sent."""
        limits, tokens = self._shared.limits, self._tokens
        seconds = limits.take(tokens)
        try:
            if seconds > 0:
                await asyncio.sleep(seconds)
            endpoint = self._shared.endpoints.pick(self._tried, tokens)
            self.spent = await send_turn(endpoint, tokens)
        except asyncio.CancelledError:
            limits.give_back(1.0, tokens)
            raise
        self._began = self._shared.gate.control.began()
        return endpoint

    def answered(self, tokens: float | None) -> None:
        """Take note of an answer that used so many tokens; None where it does not say."""
        if tokens is not None:
            self._shared.limits.give_back(0.0, self._tokens - tokens)
        self.over("ok")

    def over(self, verdict: Verdict = "void") -> None:
        """Take note that the attempt has ended, if one is under way."""
        began, self._began = self._began, None
        if began is not None:
            gate = self._shared.gate
            gate.control.ended(began, verdict, full=gate.full)
            gate.admit()

    def cut(self, error: TrunnionError) -> None:
        """Take note that an answer broke off that had begun."""
        self._judge(error)

    def wait(self, endpoint: Endpoint, error: TrunnionError, *, lost: bool) -> float:
        """Return the seconds to wait before the next attempt. Raises the error if there is to be none."""
        config, endpoints = self._shared.config, self._shared.endpoints
        self._tried |= {endpoint.url}
        several = len(endpoints.all) > 1
        if several and (lost or error.http_status in (429, 502, 503)):
            endpoint.rest(config.cool_down if error.retry_after is None else error.retry_after)
            logger.info("%s is left alone for a while: %s", endpoint.url, error)
        elsewhere = several and endpoints.fresh(self._tried)
        if lost and elsewhere and error.retryable:
            self.over()
            return 0.0
        lesson = self._judge(error)
        if not error.retryable:
            raise error
        asked = error.retry_after
        seconds = 0.0 if elsewhere else backoff(config, self._retries + self._lessons, asked)
        if not elsewhere and asked is not None and asked > config.max_retry_wait:
            raise error
        if self._deadline is not None and time.time() + seconds >= self._deadline:
            raise error
        if not lesson:
            if self._retries >= config.max_retries:
                raise error
            # Refusals make an adaptive engine send less: they multiply nothing.
            free = config.concurrency == "adaptive" and isinstance(error, Overloaded)
            if not free and not self._shared.budget.spend():
                error.details = {**error.details, "retry_budget": "used up"}
                raise error
            self._retries += 1
        return seconds

    def _judge(self, error: TrunnionError) -> bool:
        """End the attempt, and tell whether the engine sends less because of it and the like."""
        began, control = self._began, self._shared.gate.control
        passing = error.retryable and isinstance(error, (Overloaded, Transient))
        self.over(("lost" if isinstance(error, Transient) else "refused") if passing else "void")
        lesson = (
            isinstance(error, Overloaded)
            and began is not None
            and self._lessons < _LESSONS
            and control.reduced_since(began)
        )
        self._lessons += lesson
        return lesson
