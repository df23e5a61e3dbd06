"""Run all requests in common steps, as continuous batching does: decodes first, then prefill within a token budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from .config import SimConfig
from .faults import Faults
from .jobs import CoreEvent, Job
from .kv_blocks import Log
from .rank import Rank

_CATCH_UP: Final = 0.05
"""Seconds that a late call may lag behind the end of a step and still have the next step begin there."""


@dataclass(slots=True, kw_only=True)
class _Step:
    """Hold the step under way: what each job computes, and how long it takes. ``count`` steps are run in one leap.

    Attributes:
        began, slow: When it began, and by what its time is multiplied.
        jobs: Tokens that each job computes.
        decodes, context, prefill: What the time depends on.
    """

    began: float
    slow: float
    jobs: dict[Job, int] = field(default_factory=dict)
    decodes: int = 0
    context: int = 0
    prefill: int = 0
    count: int = 1


class SteppedRank(Rank):
    """Schedule steps. Several steps in which nothing changes are run in one leap, that a new arrival cuts short."""

    def __init__(self, config: SimConfig, faults: Faults, log: Log | None = None) -> None:
        super().__init__(config, faults, log)
        self._preemptive = True
        self._time = config.step
        self._speed = config.speed
        self._by_priority = config.scheduling_policy == "priority"
        self._step: _Step | None = None
        self._resting_until = math.inf
        self.steps = 0

    def step(self, now: float, events: list[CoreEvent]) -> None:
        """End the step that is due and begin the next, until one ends after ``now``."""
        while True:
            begin = now
            if self._step is not None:
                end = self._end_of(self._step)
                if end > now:
                    self.due = end
                    return
                self._complete(self._step, end, events)
                self._step = None
                begin = end if now - end < _CATCH_UP else now
            self._step = self._begin(begin)
            if self._step is None:
                loading = self._loading_until if self._loading_until is not None else math.inf
                until = min(self._resting_until, loading)
                self.due = until if until < math.inf else None
                return

    def _end_of(self, step: _Step) -> float:
        if step.prefill:
            seconds = self._time.seconds(step.decodes, step.context, step.prefill)
        else:
            seconds = self._time.run(step.count, step.decodes, step.context)
        return step.began + seconds * step.slow

    def _begin(self, now: float) -> _Step | None:
        """Choose what the next step computes; None if there is nothing to do."""
        budget = self._config.max_num_batched_tokens
        step = _Step(began=now, slow=self._faults.slowness(now) / self._speed)
        self.steps += 1
        budget, preempted = self._go_on(step, budget)
        self._loading_until = None
        if not preempted:
            self._admit(step, now, budget)
        if not step.jobs:
            return None
        if not step.prefill and not preempted:
            step.count = self._leap(step)
        return step

    def _go_on(self, step: _Step, budget: int) -> tuple[int, bool]:
        """Take the jobs that run; where blocks run out, the one that comes last gives its own back."""
        preempted = False
        self._resting_until = math.inf
        for job in list(self.running):
            if job.state != "running" or job.ended is not None or job.halted:
                continue
            if job.rest_until > step.began:
                self._resting_until = min(self._resting_until, job.rest_until)
                continue
            tokens = min(job.prompt + job.progress - job.computed, budget)
            if tokens <= 0:
                break
            while not self.pool.grow(job, job.computed + tokens):
                victim = self._victim()
                preempted = True
                budget += self._forget(step, victim)
                self._preempt(victim)
                if victim is job:
                    break
            if job.state == "running":
                budget -= self._take(step, job, tokens)
        return budget, preempted

    def _victim(self) -> Job:
        return max(self.running, key=lambda job: job.key) if self._by_priority else next(reversed(self.running))

    def _preempt(self, job: Job) -> None:
        """Put a job back into the queue; all it had computed is computed again."""
        self._leave(job)
        job.computed = 0
        job.preemptions += 1
        super().add(job, 0.0)

    def _take(self, step: _Step, job: Job, tokens: int) -> int:
        """Add a job to the step; returns what it costs of the budget."""
        step.jobs[job] = tokens
        step.context += job.computed + tokens
        if job.computed >= job.prompt and tokens == 1:
            width = job.width(job.progress)
            step.decodes += width
            return width
        step.prefill += tokens
        return tokens

    @staticmethod
    def _forget(step: _Step, job: Job) -> int:
        """Take a job out of the step; returns what of the budget is free again."""
        tokens = step.jobs.pop(job, 0)
        if not tokens:
            return 0
        step.context -= job.computed + tokens
        if job.computed >= job.prompt and tokens == 1:
            width = job.width(job.progress)
            step.decodes -= width
            return width
        step.prefill -= tokens
        return tokens

    def _admit(self, step: _Step, now: float, budget: int) -> None:
        whole = not self._config.enable_chunked_prefill
        while self.waiting and budget > 0:
            room = self._config.max_model_len if whole else budget
            if whole and step.jobs and self.waiting[0].prompt > budget:
                break
            job = self._next_admitted(now, room)
            if job is None:
                break
            budget -= self._take(step, job, min(room, job.prompt + job.progress - job.computed))

    def _leap(self, step: _Step) -> int:
        """Return how many steps to run at once: until a job has something to tell, or blocks could run short."""
        jobs = [job for job in self.running if not job.halted and job.ended is None]
        if len(jobs) != len(step.jobs) or any(job.slow > 1 or job.lengths for job in jobs):
            return 1
        count = min(job.next_report - job.progress for job in jobs)
        if self._loading_until is not None:  # somebody gets in when an adapter is there
            wanted = (self._loading_until - step.began) / step.slow
            count = self._time.steps_within(wanted, count, step.decodes, step.context)
        size = self.pool.size
        while count > 1:
            lacking = sum(-(-(job.computed + count) // size) - job.private - len(job.held) for job in jobs)
            if lacking <= self.pool.available:
                break
            count //= 2
        if count > 1:
            for job in jobs:
                self.pool.grow(job, job.computed + count)
        return max(1, count)

    def _wake(self, now: float) -> None:
        """Cut a leap short at the next end of a step, so that whoever waits may get in."""
        step = self._step
        if step is None:
            self.due = now if self.due is None else min(self.due, now)
        elif step.count > 1 and len(self.running) < self._size:
            wanted = (now - step.began) / step.slow
            step.count = self._time.steps_within(wanted, step.count, step.decodes, step.context)
            for job in step.jobs:
                if job.state == "running":
                    self.pool.trim(job, job.computed + step.count)
            self.due = self._end_of(step)

    def _complete(self, step: _Step, time: float, events: list[CoreEvent]) -> None:
        for job, tokens in step.jobs.items():
            if job.state != "running" or job.ended is not None:
                continue
            job.computed += tokens * step.count
            if job.slow > 1:
                job.rest_until = time + (job.slow - 1) * (time - step.began)
            if job.hashes and job.stored < len(job.hashes):
                self.pool.store(job)
            if job.computed < job.prompt + job.progress:
                continue
            report = job.next_report
            if job.progress < job.limit:
                if not job.progress and job.first_token is None:
                    job.first_token = time
                job.progress += step.count
                if job.progress >= report:
                    events.append(CoreEvent("tokens", job, time))
            if job.progress >= job.limit:
                self._stop_at_limit(job, time, events)

    def _stop_at_limit(self, job: Job, time: float, events: list[CoreEvent]) -> None:
        if job.halt_at is not None and job.limit == job.halt_at:
            job.halted = True
            events.append(CoreEvent("halted", job, time))
        else:
            self._finish(job, time, events)
