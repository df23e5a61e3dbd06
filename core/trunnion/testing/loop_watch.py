"""Measure how long the tasks of an event loop keep it to themselves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

try:
    import resource
except ImportError:  # not on Windows
    _THREAD: Any = None
else:
    _THREAD = getattr(resource, "RUSAGE_THREAD", None)  # Linux has it

_BRIEF: Final = 0.0003
"""Seconds that a task may wait within one step, as for another thread's lock, without counting as blocked."""
_LONG: Final = 0.01
"""Seconds that a task may compute in one step."""
SHARE: Final = 0.3
"""Share of the time for which tasks may keep a loop from running anything else."""
_STEPS: Final = 10
"""Steps that must have done so: a few may load or compile something."""


@dataclass(slots=True)
class Held:
    """Count the steps of tasks that blocked, or computed for long, and the seconds they took.

    Attributes:
        waited: Seconds for which steps stood still because a busy machine ran something else.
    """

    began: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    waited: float = 0.0

    def wrong(self) -> str | None:
        """Return what is wrong with the loop that was watched until now; None where nothing is."""
        elapsed = time.monotonic() - self.began - self.waited
        if self.steps < _STEPS or self.seconds < SHARE * elapsed:
            return None
        return (
            f"the event loop was blocked for {self.seconds / elapsed:.0%} of the time, in {self.steps} steps of "
            f"{1000 * self.seconds / self.steps:.1f} ms and at most {1000 * self.longest:.1f} ms"
        )


@contextmanager
def watched() -> Iterator[Held]:
    """Watch the tasks of this thread's loop while the context is open.

    A step of a task counts where it slept in a call (the thread gave its processor up of its own accord, and the
    system did not take it away), or used the processor for long. Time for which a busy machine ran something else
    does not count. Only the computing is seen where the system tells neither (elsewhere than on Linux).
    """
    thread, held, run = threading.get_ident(), Held(began=time.monotonic()), asyncio.Handle._run  # noqa: SLF001

    def timed(handle: Any) -> Any:
        owner = getattr(handle._callback, "__self__", None)  # noqa: SLF001 - nothing public tells
        if threading.get_ident() != thread or not isinstance(owner, asyncio.Task):
            return run(handle)
        slept, taken = _switches()
        began, used = time.perf_counter(), time.thread_time()
        try:
            return run(handle)
        finally:
            wall, computed = time.perf_counter() - began, time.thread_time() - used
            slept_now, taken_now = _switches()
            blocked = wall - computed if slept_now > slept and taken_now == taken else 0.0
            held.waited += max(0.0, wall - computed - blocked)
            if blocked > _BRIEF or computed > _LONG:
                seconds = computed + blocked
                held.steps += 1
                held.seconds += seconds
                held.longest = max(held.longest, seconds)

    asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]  # noqa: SLF001
    try:
        yield held
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]  # noqa: SLF001


def _switches() -> tuple[int, int]:
    """Return how often this thread gave its processor up, and how often the system took it away."""
    if _THREAD is None:
        return 0, 0
    usage = resource.getrusage(_THREAD)
    return usage.ru_nvcsw, usage.ru_nivcsw
