"""Notice clients that hang up, at a price that short requests do not pay.

ASGI tells of a disconnect through ``receive()``, which somebody must await beside the work: one more task per request.
Most requests end sooner than a person or a proxy can hang up, so a request gets its watcher only when it is still in
flight at the next look, a fraction of a second later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

logger = logging.getLogger("trunnion.http")

_PATIENCE = 8
"""Messages other than a hang-up to read after the body: a server that goes on for ever must not spin the loop."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Flight:
    """Hold one request in flight: the task that answers it, and whether its client is gone."""

    __slots__ = ("gone", "receive", "task", "watcher")

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self.task = task
        self.receive = receive
        self.gone = False
        self.watcher: asyncio.Task[None] | None = None


class DisconnectWatch:
    """Cancel the task of a request whose client hung up. One per app, on the app's loop."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._young: set[Flight] = set()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, receive: Receive) -> Flight:
        """Begin to watch the current task's request; its body must have been read."""
        task = asyncio.current_task()
        if task is None:
            msg = "enter() must be called by the task that answers the request"
            raise RuntimeError(msg)
        flight = Flight(task, receive)
        self._young.add(flight)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)
        return flight

    def leave(self, flight: Flight) -> None:
        """End the watch. Takes back a cancellation that came too late to be noticed."""
        self._young.discard(flight)
        if flight.watcher is not None:
            flight.watcher.cancel()

    def _look(self) -> None:
        """Give every request that is still young a watcher; the timer rests while there is none."""
        self._timer = None
        if not self._young:
            return
        for flight in self._young:
            flight.watcher = asyncio.create_task(_watch(flight))
        self._young.clear()


async def _watch(flight: Flight) -> None:
    try:
        for _ in range(_PATIENCE):
            if (await flight.receive())["type"] == "http.disconnect":
                break
        else:
            return
    except Exception:
        # Wrongly ending a good request would be worse than holding a slot until it is done.
        logger.exception("this server's receive() failed; a hang-up of this client goes unnoticed")
        return
    flight.gone = True
    flight.task.cancel()
