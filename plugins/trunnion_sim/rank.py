"""Admit jobs to one data-parallel rank: by priority, then arrival; as sequences, KV blocks and adapters allow."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from typing import Final

from trunnion.errors import InvalidArgument, Overloaded

from .config import SimConfig
from .faults import Faults
from .jobs import CoreEvent, Job
from .kv_blocks import BlockPool, Log
from .residency import Residency

_RETRY_AFTER: Final = 1.0


class Rank(ABC):
    """Hold the queue, the jobs that run, and what they hold. How time passes is up to the kind of rank."""

    def __init__(self, config: SimConfig, faults: Faults, log: Log | None = None) -> None:
        self._config = config
        self._faults = faults
        self._size = config.max_num_seqs
        self._preemptive = False
        self.pool = BlockPool(config.kv_blocks, config.block_size, caching=config.enable_prefix_caching, log=log)
        self.adapters = Residency(config.max_loras, config.lora_load_seconds, config.adapters)
        self.waiting: list[Job] = []
        self.running: dict[Job, None] = {}
        self.due: float | None = None
        self._loading_until: float | None = None

    @abstractmethod
    def step(self, now: float, events: list[CoreEvent]) -> None:
        """Go on to ``now``, add what happened, and set ``due`` to when to be called again."""

    def check_room(self, job: Job) -> None:
        """Refuse what can never run, or what finds the queue full.

        Raises:
            InvalidArgument: It needs more KV blocks than there are.
            Overloaded: Too many wait already.
        """
        needed = job.blocks_at(job.prompt + job.output, self.pool.size)
        if needed > self.pool.capacity:
            raise InvalidArgument(
                f"the request needs {needed} KV blocks and the engine has {self.pool.capacity}; "
                "ask for fewer tokens, or raise num_gpu_blocks_override",
                param="max_tokens",
            )
        most = self._config.max_waiting
        if most is not None and len(self.waiting) - (self._size - len(self.running)) >= most:
            raise Overloaded(f"{len(self.waiting)} requests wait already; try again later", retry_after=_RETRY_AFTER)

    def add(self, job: Job, now: float) -> None:
        """Queue a job; it is looked at with the next step, which is due at once unless one is under way."""
        job.state = "waiting"
        heapq.heappush(self.waiting, job)
        self._wake(now)

    def remove(self, job: Job, now: float) -> None:
        """Give up a job, or let go of one that held on after its end."""
        if job.state == "waiting":
            self.waiting.remove(job)
            heapq.heapify(self.waiting)
        elif job.state == "running":
            self._leave(job)
            self._wake(now)
        job.state = "ended"

    @abstractmethod
    def _wake(self, now: float) -> None:
        """See to it that the next step comes soon enough to admit who waits."""

    def _leave(self, job: Job) -> None:
        del self.running[job]
        if job.private or job.held:
            self.pool.release(job)
        if job.adapter is not None:
            self.adapters.unpin(job.adapter)

    def _finish(self, job: Job, time: float, events: list[CoreEvent]) -> None:
        job.ended = time
        if not job.hold:
            self._leave(job)
            job.state = "ended"
        events.append(CoreEvent("finished", job, time))

    def _next_admitted(self, now: float, room: int) -> Job | None:
        """Return the next job that gets in, with its slot, blocks and adapter; None if nobody does.

        ``room`` is the number of tokens that may be computed; a job is given the blocks of its first chunk, or
        all it will ever need where jobs are not preempted. Those whose adapter loads are passed by.
        """
        parked: list[Job] = []
        self._loading_until = None
        found = None
        while self.waiting and len(self.running) < self._size and room > 0:
            job = heapq.heappop(self.waiting)
            if job.adapter is not None and not self._adapter_ready(job.adapter, now):
                parked.append(job)
                continue
            if not self._give_blocks(job, room):
                heapq.heappush(self.waiting, job)
                break
            found = job
            break
        for job in parked:
            heapq.heappush(self.waiting, job)
        if found is not None:
            self._enter(found, now)
        return found

    def _adapter_ready(self, name: str, now: float) -> bool:
        due = self.adapters.ready_at(name, now)
        if due is not None and due <= now:
            return True
        if due is not None and (self._loading_until is None or due < self._loading_until):
            self._loading_until = due
        return False

    def _give_blocks(self, job: Job, room: int) -> bool:
        hits = self.pool.hits(job)
        cached = hits * self.pool.size
        first = cached + min(room, job.prompt + job.progress - cached)
        end = first if self._preemptive else job.prompt + job.output
        if not self.pool.admit(job, hits, end):
            return False
        job.computed = cached
        if job.cached is None:
            job.cached = min(cached, job.prompt)
        return True

    def _enter(self, job: Job, now: float) -> None:
        job.state = "running"
        if job.admitted is None:
            job.admitted = now
        if job.adapter is not None:
            self.adapters.pin(job.adapter)
        self.running[job] = None
