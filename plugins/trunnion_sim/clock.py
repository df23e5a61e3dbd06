"""Drive the core on an event loop: the wall clock's driver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from .core import SimCore
from .jobs import CoreEvent, Job


class WallClock:
    """Call ``step`` when it is due, and hand on what happened. Time 0 is the moment it is made."""

    def __init__(self, core: SimCore, dispatch: Callable[[Sequence[CoreEvent]], None]) -> None:
        """Take the core and who hears of its events; belongs to the running loop."""
        self._core = core
        self._dispatch = dispatch
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._armed_for = 0.0
        self._at_once = core.config.step.free
        self._arm()

    @property
    def now(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def add(self, job: Job) -> None:
        """Queue a job. Without common steps it may begin, and even end, before this returns."""
        self._core.add(job, self.now)
        if self._at_once:
            self._step()
        else:
            self._arm()

    def remove(self, job: Job) -> None:
        """Give a job up, or free what it still holds; whoever waits moves up."""
        self._core.remove(job, self.now)
        self._arm()

    def stop(self) -> None:
        """Call the core no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._core.dead = True

    def _step(self) -> None:
        self._dispatch(self._core.step(self.now))
        self._arm()

    def _fire(self) -> None:
        self._timer = None
        self._step()

    def _arm(self) -> None:
        due = self._core.due
        if self._timer is not None:
            if due == self._armed_for:
                return
            self._timer.cancel()
            self._timer = None
        if due is None:
            return
        self._armed_for = due
        delay = due - self.now
        self._timer = self._loop.call_soon(self._fire) if delay <= 0 else self._loop.call_later(delay, self._fire)
