"""Spread requests over several addresses by weight, and leave alone for a while those that fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from .limits import Quota, Spent


class Endpoint:
    """Hold one address: what is in flight there, what it says is left, until when it is left alone."""

    __slots__ = ("cool_until", "in_flight", "quota", "turn", "url", "weight")

    def __init__(self, url: str, *, weight: float = 1.0, quota: Quota | None = None) -> None:
        self.url = url
        self.weight = weight
        self.quota = Quota(1.0, 0.0) if quota is None else quota
        self.in_flight = 0
        self.cool_until = 0.0
        self.turn = 0.0

    def rest(self, seconds: float) -> None:
        """Leave the address alone for so many seconds."""
        self.cool_until = max(self.cool_until, time.monotonic() + seconds)


class Endpoints:
    """Choose an address for each request: the one with the least in flight for its weight, in turn among equals."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.all = tuple(endpoints)

    def pick(self, avoid: frozenset[str] = frozenset(), tokens: float = 0.0) -> Endpoint:
        """Return an address; one to avoid, that rests, or whose own limit is reached, only where there is no other.

        An address of weight 0 is taken only where those with one are out of the question.
        """
        if len(self.all) == 1:
            return self.all[0]
        now = time.monotonic()

        lead = max(one.turn for one in self.all)

        def turn(one: Endpoint) -> float:
            step = 1 / (one.weight or 1.0)
            return max(one.turn, lead - step) + step  # one that was away has not saved its turns up

        def order(one: Endpoint) -> tuple[float, ...]:
            in_flight = one.in_flight / (one.weight or 1.0)
            rests = max(0.0, one.cool_until - now)
            return rests, one.url in avoid, one.quota.wait(tokens), not one.weight, in_flight, turn(one)

        chosen = min(self.all, key=order)
        chosen.turn = turn(chosen)
        return chosen

    def fresh(self, tried: frozenset[str]) -> bool:
        """Tell whether there is an address that was not tried and does not rest."""
        now = time.monotonic()
        return any(e.url not in tried and e.cool_until <= now for e in self.all)


async def send_turn(endpoint: Endpoint, tokens: float) -> Spent:
    """Wait until the endpoint's own limits allow a request of so many tokens, and take note that it is sent."""
    while (seconds := endpoint.quota.wait(tokens)) > 0:  # noqa: ASYNC110 - the time is known
        await asyncio.sleep(seconds)
    return endpoint.quota.spend(tokens)
