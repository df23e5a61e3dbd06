"""Admit requests to their places in flight, in turn, whose number may change while they wait."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from .adaptive import Began, Verdict


class Control(Protocol):
    """Say how many requests may be in flight, and learn from how each attempt ends."""

    limit: int

    def began(self) -> Began:
        """Take note that an attempt is sent; returns what :meth:`ended` wants to know of it."""
        ...

    def ended(self, began: Began, verdict: Verdict, *, full: bool) -> None:
        """Take note of how an attempt ended; ``full``: every place was taken."""
        ...

    def reduced_since(self, began: Began) -> bool:
        """Tell whether the limit was lowered after that because of what the endpoint refused."""
        ...

    def impatience(self) -> float | None:
        """Return the seconds after which :meth:`hurry` is due if nothing ends; None for never."""
        ...

    def hurry(self) -> None:
        """Take note that nothing ended for so long while others waited."""
        ...


_NEVER: Final = Began(0, 0.0)


class Fixed:
    """Keep the limit as it was set."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def began(self) -> Began:
        """Return nothing of use."""
        return _NEVER

    def ended(self, began: Began, verdict: Verdict, *, full: bool) -> None:
        """Learn nothing."""

    def reduced_since(self, began: Began) -> bool:  # noqa: ARG002 - the protocol's
        """Return False."""
        return False

    def impatience(self) -> None:
        """Return None."""

    def hurry(self) -> None:
        """Do nothing."""


class Gate:
    """Hold the places in flight. Belongs to one loop."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def full(self) -> bool:
        """Tell whether every place is taken."""
        return self.running >= self.control.limit

    def admit(self) -> None:
        """Give free places to those that wait."""
        waiting = self._waiting
        while waiting and not self.full:
            turn = waiting.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)

    async def take(self, *, first: bool) -> None:
        """Wait for a place; ``first``: before those that have not been sent at all."""
        if not self.full and not self._waiting:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(turn)
        self.admit()
        self._watch()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place was given, and nobody is there to take it
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        self.admit()

    def _watch(self) -> None:
        if self._timer is None and self._waiting:
            seconds = self.control.impatience()
            if seconds is not None:
                self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        self._waiting = deque(turn for turn in self._waiting if not turn.done())
        if self._waiting and self.control.impatience() == 0:
            self.control.hurry()
            self.admit()
        self._watch()

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Place:
    """Hold the place of one request, which leaves it while it waits before a repetition. Not shared."""

    __slots__ = ("_gate", "_held")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held = False

    async def take(self) -> None:
        """Wait for a place."""
        await self._gate.take(first=False)
        self._held = True

    async def take_again(self) -> None:
        """Wait for a place, before those that have not been sent at all."""
        await self._gate.take(first=True)
        self._held = True

    def leave(self) -> None:
        """Give the place back, if one is held."""
        if self._held:
            self._held = False
            self._gate.leave()
