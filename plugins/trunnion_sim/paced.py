"""Give each request a timetable of its own: ``ttft`` to the first token, ``tpot`` to each further one."""

from __future__ import annotations

import heapq

from .config import SimConfig
from .faults import Faults
from .jobs import CoreEvent, Job
from .kv_blocks import Log
from .rank import Rank


class PacedRank(Rank):
    """Run jobs side by side without a common step. With times of zero a job is done when it is admitted.

    Blocks are lent for the whole length of a job, so that none has to be preempted.
    """

    def __init__(self, config: SimConfig, faults: Faults, log: Log | None = None) -> None:
        super().__init__(config, faults, log)
        self._timetable: list[tuple[float, int, Job]] = []

    def step(self, now: float, events: list[CoreEvent]) -> None:
        """Tell the tokens that are due, and admit who waits, as slots become free."""
        timetable = self._timetable
        self._admit(now, events)
        while timetable and timetable[0][0] <= now:
            due, _, job = heapq.heappop(timetable)
            if job not in self.running:
                continue
            self._reach(job, due, events)
            if self.waiting:
                self._admit(due, events)
        self.due = timetable[0][0] if timetable else None
        if self._loading_until is not None and self.waiting:
            self.due = self._loading_until if self.due is None else min(self.due, self._loading_until)

    def _admit(self, now: float, events: list[CoreEvent]) -> None:
        config = self._config
        while self.waiting and (job := self._next_admitted(now, 1)) is not None:
            job.computed = job.prompt
            if self.pool.caching and job.hashes:
                self.pool.store(job)
            slow = job.slow * self._faults.slowness(now)
            if not (config.ttft or config.tpot):
                job.first_token = now
                job.progress = job.limit
                if job.limit:
                    events.append(CoreEvent("tokens", job, now))
                self._end(job, now, events)
                continue
            self._schedule(job, now + slow * (config.ttft + config.tpot * max(0, job.next_report - 1)))
            job.first_token = now + slow * config.ttft

    def _schedule(self, job: Job, due: float) -> None:
        heapq.heappush(self._timetable, (due, job.key[1], job))

    def _reach(self, job: Job, now: float, events: list[CoreEvent]) -> None:
        job.progress = job.next_report
        job.computed = job.prompt + job.progress
        if job.progress:
            events.append(CoreEvent("tokens", job, now))
        if job.progress < job.limit:
            slow = job.slow * self._faults.slowness(now)
            self._schedule(job, now + slow * self._config.tpot * (job.next_report - job.progress))
        else:
            self._end(job, now, events)

    def _end(self, job: Job, now: float, events: list[CoreEvent]) -> None:
        if job.halt_at is not None and job.limit == job.halt_at:
            job.halted = True
            events.append(CoreEvent("halted", job, now))
        else:
            self._finish(job, now, events)

    def _wake(self, now: float) -> None:
        if self.waiting:
            self.due = now if self.due is None else min(self.due, now)
