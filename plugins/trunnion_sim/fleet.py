"""Run many replicas on a virtual clock: hours of a trace in seconds, behind a real router."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from trunnion import Candidate, GenerateRequest, LoadReport, Router, TokensPrompt
from trunnion.errors import InvalidArgument, Overloaded

from .config import SimConfig
from .core import SimCore
from .faults import BREAKS
from .jobs import CoreEvent, Job
from .trace import TraceRequest

Status = Literal["ok", "refused", "failed", "unfinished"]
_GROUP_STRIDE: Final = 1 << 24
"""Token ids that lie between two groups."""
_OWN_STRIDE: Final = 1 << 16


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome:
    """Tell how one request fared; times in seconds, None where it did not come so far.

    Attributes:
        queued: From arrival to admission.
        ttft: From arrival to the first token.
        tpot: Per further token; None for a single token.
        latency: From arrival to the end.
    """

    request: TraceRequest
    replica: int | None = None
    status: Status = "unfinished"
    queued: float | None = None
    ttft: float | None = None
    tpot: float | None = None
    latency: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0


class _Replica:
    """Hold one core, and what a router may know of it."""

    __slots__ = ("candidate", "core", "in_flight", "number", "report")

    def __init__(self, number: int, config: SimConfig) -> None:
        self.number = number
        self.core = SimCore(config)
        self.in_flight: dict[Job, tuple[Outcome, GenerateRequest]] = {}
        self.report = LoadReport(running=0, waiting=0, timestamp=0.0)
        self.candidate: Candidate | None = None


class Fleet:
    """Replay a trace on replicas that are all alike. Used once."""

    def __init__(self, config: SimConfig, router: Router, *, replicas: int = 1) -> None:
        """Take the settings of a replica, and the router that chooses among them."""
        self._config = config
        self._router = router
        self._replicas = [_Replica(number, config) for number in range(replicas)]
        self._alive = list(self._replicas)
        self._dues: list[tuple[float, int]] = []
        self._tick = 0
        self._number = 0
        self.now = 0.0

    def run(self, trace: Iterable[TraceRequest]) -> list[Outcome]:
        """Return the outcome of each request, in order, once nothing is left to do."""
        outcomes: list[Outcome] = []
        for replica in self._replicas:
            self._schedule(replica)
        for request in trace:
            self._advance(request.arrival)
            self.now = request.arrival
            outcome = Outcome(request=request)
            outcomes.append(outcome)
            self._arrive(request, outcome)
        if outcomes:
            self._advance(float("inf"))
        return outcomes

    def _advance(self, until: float) -> None:
        """Step every replica that is due before ``until``, in order of time."""
        dues = self._dues
        while dues and dues[0][0] < until:
            due, number = heapq.heappop(dues)
            replica = self._replicas[number]
            if replica.core.due != due:
                continue  # it was put off, or brought forward, since
            if until == float("inf") and not any(one.in_flight for one in self._alive):
                return  # what is left is only a crash to come
            self.now = due
            self._observe(due)
            events = replica.core.step(due)
            self._take(replica, events)
            self._schedule(replica)

    def _schedule(self, replica: _Replica) -> None:
        due = replica.core.due
        if due is not None:
            heapq.heappush(self._dues, (due, replica.number))

    def _observe(self, now: float) -> None:
        """Let every replica report, where an interval of reports has passed."""
        interval = self._config.load_report_interval
        tick = int(now / interval) if interval else 0
        if tick == self._tick:
            return
        self._tick = tick
        for replica in self._alive:
            replica.report = self._report(replica, tick * interval)
            replica.candidate = None

    @staticmethod
    def _report(replica: _Replica, now: float) -> LoadReport:
        core = replica.core
        return LoadReport(
            running=core.running,
            waiting=core.waiting,
            timestamp=now,
            kv_cache_usage=core.kv_cache_usage,
            adapters=core.adapters,
        )

    def _arrive(self, request: TraceRequest, outcome: Outcome) -> None:
        now = request.arrival
        self._observe(now)
        number, self._number = self._number, self._number + 1
        job, asked = _job(request, self._config), _asked(request, number)
        ranking = self._router.rank(asked, [self._candidate(replica, now) for replica in self._alive])
        chosen = ranking.first
        if chosen is None:
            outcome.status = "refused"
            return
        replica = self._replicas[int(chosen.id)]
        outcome.replica = replica.number
        rule = replica.core.faults.strike("", number, now) if replica.core.faults else None
        if rule is not None and rule.kind in BREAKS:
            job.halt_at = min(rule.after, job.output - 1)
            job.owner = rule.kind
        elif rule is not None and rule.kind == "slow":
            job.slow = rule.factor
        self._router.routed(asked, chosen)
        if (rule is not None and rule.kind == "refuse") or not _taken(replica.core, job, now):
            outcome.status = "refused"
            self._router.completed(asked, chosen, ok=False)
            return
        replica.in_flight[job] = (outcome, asked)
        replica.candidate = None
        self._schedule(replica)

    def _candidate(self, replica: _Replica, now: float) -> Candidate:
        """Describe a replica as a router sees it; made anew only when something changed."""
        if replica.candidate is None:
            interval = self._config.load_report_interval
            if not interval:
                replica.report = self._report(replica, now)
            replica.candidate = Candidate(
                id=str(replica.number),
                in_flight=len(replica.in_flight),
                load=replica.report,
                load_age=now - replica.report.timestamp,
                adapters=frozenset(replica.report.adapters),
            )
        return replica.candidate

    def _take(self, replica: _Replica, events: Sequence[CoreEvent]) -> None:
        replica.candidate = None
        for kind, job, time in events:
            if job is None:
                self._lose(replica)
            elif kind == "finished":
                self._finish(replica, job, ok=True)
            elif kind == "halted" and job.owner in ("crash", "exit"):
                self._lose(replica)
            elif kind == "halted" and job.owner == "die":
                replica.core.remove(job, time)
                self._finish(replica, job, ok=False)

    def _finish(self, replica: _Replica, job: Job, *, ok: bool) -> None:
        found = replica.in_flight.pop(job, None)
        if found is None:
            return
        outcome, asked = found
        outcome.status = "ok" if ok else "failed"
        outcome.cached_tokens = job.cached or 0
        outcome.preemptions = job.preemptions
        if job.admitted is not None:
            outcome.queued = job.admitted - job.arrived
        if job.first_token is not None and ok:
            outcome.ttft = job.first_token - job.arrived
        if ok and job.ended is not None:
            outcome.latency = job.ended - job.arrived
            if job.output > 1 and job.first_token is not None:
                outcome.tpot = (job.ended - job.first_token) / (job.output - 1)
        self._router.completed(asked, self._candidate(replica, self.now), ok=ok)

    def _lose(self, replica: _Replica) -> None:
        """Take a crashed replica, and all that ran on it, out."""
        replica.core.dead = True
        for job in list(replica.in_flight):
            self._finish(replica, job, ok=False)
        if replica in self._alive:
            self._alive.remove(replica)
            self._router.replicas_changed([self._candidate(one, self.now) for one in self._alive])


def _taken(core: SimCore, job: Job, now: float) -> bool:
    """Add a job; False where it is refused."""
    try:
        core.add(job, now)
    except (Overloaded, InvalidArgument):
        return False
    return True


def _shared(request: TraceRequest) -> int:
    if request.group is None:
        return 0
    return min(request.prompt_tokens, request.prompt_tokens if request.group_tokens is None else request.group_tokens)


def _job(request: TraceRequest, config: SimConfig) -> Job:
    """Return a job whose blocks are shared within its group; what is its own can never be asked for again."""
    hashes: Sequence[int] = ()
    shared = _shared(request)
    if shared and config.enable_prefix_caching:
        first = zlib.crc32(f"{request.group}/{request.adapter}".encode()) * _GROUP_STRIDE
        hashes = range(first, first + shared // config.block_size)
    return Job(
        prompt=request.prompt_tokens,
        output=request.output_tokens,
        chunk=request.output_tokens,
        priority=request.priority,
        adapter=request.adapter,
        hashes=hashes,
    )


def _asked(request: TraceRequest, number: int) -> GenerateRequest:
    """Return the request that the router sees: token ids that are equal where the trace says so."""
    shared = _shared(request)
    group = zlib.crc32(str(request.group).encode()) * _GROUP_STRIDE
    own = -(number + 1) * _OWN_STRIDE
    tokens = (*range(group, group + shared), *range(own, own + request.prompt_tokens - shared))
    return GenerateRequest(
        prompt=TokensPrompt(token_ids=tokens),
        request_id=str(number),
        session=request.session,
        adapter=request.adapter,
        priority=request.priority,
    )
