"""Run the engine's scheduling as a pure function of calls: no clock, no loop, no I/O. Drivers bring the time.

``add`` a job, ``step(now)`` whenever ``due`` says so, and look at the events. The live engine does so on an event
loop, the fleet on a virtual clock; the same calls give the same events.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from .config import SimConfig
from .faults import Faults
from .jobs import CoreEvent, Job
from .paced import PacedRank
from .rank import Rank
from .stepped import SteppedRank

KVLog = Callable[[int, dict[str, Any]], None]


class SimCore:
    """Hold the data-parallel ranks of one engine; each job goes to the one with the least to do."""

    def __init__(self, config: SimConfig, *, kv_log: KVLog | None = None) -> None:
        """Begin at time 0. ``kv_log`` is told of each KV event, with its rank."""
        self.config = config
        self.faults = Faults(config.fault_rules, config.seed)
        kind: type[Rank] = PacedRank if config.step.free else SteppedRank
        self.ranks = [kind(config, self.faults, _bound(kv_log, rank)) for rank in range(config.data_parallel_size)]
        self._arrivals = itertools.count()
        self._crash_at = self.faults.crash_at
        self._ignores_priority = config.scheduling_policy == "fcfs"
        self.dead = False

    def add(self, job: Job, now: float) -> None:
        """Queue a job; the next ``step`` looks at it.

        Raises:
            InvalidArgument: It needs more KV blocks than there are.
            Overloaded: Too many wait already.
        """
        ranks = self.ranks
        rank = 0 if len(ranks) == 1 else min(range(len(ranks)), key=self._burden)
        ranks[rank].check_room(job)
        job.rank = rank
        job.arrived = now
        job.key = (0 if self._ignores_priority else job.priority, next(self._arrivals))
        ranks[rank].add(job, now)

    def _burden(self, rank: int) -> int:
        """Weigh who waits four times, as vLLM's own balancer does."""
        return 4 * len(self.ranks[rank].waiting) + len(self.ranks[rank].running)

    def remove(self, job: Job, now: float) -> None:
        """Give up a job, or free what one holds after its end. Harmless where it is gone already."""
        if job.state in ("waiting", "running"):
            self.ranks[job.rank].remove(job, now)

    def step(self, now: float) -> list[CoreEvent]:
        """Go on to ``now`` and return what happened since the last call, in order of time for each rank."""
        events: list[CoreEvent] = []
        if self.dead:
            return events
        for rank in self.ranks:
            if rank.due is not None and rank.due <= now:
                rank.step(now, events)
        if self._crash_at is not None and self._crash_at <= now:
            self.dead = True
            events.append(CoreEvent("crashed", None, self._crash_at))
        return events

    @property
    def due(self) -> float | None:
        """Return when ``step`` is to be called next; None while there is nothing to wait for."""
        if self.dead:
            return None
        dues = [rank.due for rank in self.ranks if rank.due is not None]
        if self._crash_at is not None:
            dues.append(self._crash_at)
        return min(dues, default=None)

    @property
    def running(self) -> int:
        """Return how many jobs hold a slot."""
        return sum(len(rank.running) for rank in self.ranks)

    @property
    def waiting(self) -> int:
        """Return how many jobs wait."""
        return sum(len(rank.waiting) for rank in self.ranks)

    @property
    def kv_cache_usage(self) -> float:
        """Return the share of KV blocks in use, of the fullest rank."""
        return max(rank.pool.used / rank.pool.capacity for rank in self.ranks)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Return the adapters that are resident on some rank."""
        return tuple(dict.fromkeys(name for rank in self.ranks for name in rank.adapters.names))

    def reset_prefix_cache(self) -> bool:
        """Forget cached prefixes on every rank; False, and none forgotten, where jobs use some."""
        if any(rank.pool.shared for rank in self.ranks):
            return False
        for rank in self.ranks:
            rank.pool.reset()
        return True


def _bound(log: KVLog | None, rank: int) -> Callable[[dict[str, Any]], None] | None:
    return None if log is None else lambda event: log(rank, event)
