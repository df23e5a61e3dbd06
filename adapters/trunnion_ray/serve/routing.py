"""Let a Trunnion router order the replicas inside Ray Serve's request-router interface."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from trunnion.engine import LoadReport
from trunnion.registry import get_registry
from trunnion.requests import GenerateRequest, TextPrompt
from trunnion.router import Candidate, Router

from .config import RouterConfig
from .relay import RelayedRequest

_BOUND: Final = 100_000
"""Requests in flight whose end is awaited; the oldest beyond it are forgotten."""
_UNDERWAY: Final = 1.0
"""Seconds for which a replica that was ranked first counts as chosen, until a request is sent there."""
_TELLS_END: Final = hasattr(RequestRouter, "on_request_completed")
"""Whether this Ray says when a request is over; where it does not, Serve's own count must do."""


class _Underway(NamedTuple):
    replica: str
    since: float
    request: GenerateRequest


def request_router_config(config: RouterConfig) -> RequestRouterConfig:
    """Return Serve's configuration for a router plugin, having checked that it can be built.

    Raises:
        ConfigError: The router refuses its configuration.
        PluginError: The router cannot be used here.
    """
    get_registry().build_router(config.router, config.config)
    return RequestRouterConfig(
        request_router_class="trunnion_ray.serve.routing:TrunnionRequestRouter",
        request_router_kwargs={"router": config.router, "config": config.config},
        request_routing_stats_period_s=1.0,
    )


class TrunnionRequestRouter(RequestRouter):  # type: ignore[misc]
    """Rank the replicas by a router plugin. Each group has one member, so that Serve keeps the order."""

    def initialize_state(self, *, router: str, config: dict[str, Any]) -> None:
        """Build the router. Serve calls this once in every process that holds a handle."""
        self._router: Router = get_registry().build_router(router, config)
        self._in_flight: Counter[str] = Counter()
        self._sent: OrderedDict[str, tuple[GenerateRequest, str]] = OrderedDict()
        # Requests that a replica was chosen for and that are not sent yet. Serve awaits in between; without these, all
        # that come in that moment would find the same replica the least loaded.
        self._underway: OrderedDict[str, _Underway] = OrderedDict()
        self._doubtful: set[ReplicaID] = set()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas, the best first."""
        request = _request_of(pending_request)
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        number = None if pending_request is None else pending_request.metadata.internal_request_id
        underway = self._count_underway(number)
        ranking = self._router.rank(request, [self._candidate(r, underway) for r in candidate_replicas])
        order = [candidate.id for group in ranking.groups for candidate in group.candidates]
        if order and number is not None:
            self._underway[number] = _Underway(order[0], time.monotonic(), request)
        self._vouch(candidate_replicas)
        return [[replicas[unique]] for unique in order]

    def _vouch(self, candidates: list[RunningReplica]) -> None:
        """Spare Serve the question how long a replica's queue is, with 0.1 s for the answer, where it has forgotten.

        It forgets after ten seconds without a request, and passes over who does not answer in time: a burst would go to
        whichever replica came last, for of that one it knows. A replica that is full says so when it is asked.
        """
        cache = self.replica_queue_len_cache
        for replica in candidates:
            known = replica.replica_id
            if cache.get(known) is not None:
                self._doubtful.discard(known)  # it has answered
            elif known not in self._doubtful:
                cache.update(known, self._in_flight[known.unique_id])

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:
        """Have Serve ask a replica that could not be reached before it is sent anything."""
        super().on_replica_actor_unavailable(replica_id)
        self._doubtful.add(replica_id)

    def _count_underway(self, number: str | None) -> Counter[str]:
        """Return how many other requests are about to be sent to each replica."""
        self._underway.pop(number or "", None)
        old = time.monotonic() - _UNDERWAY
        while self._underway and next(iter(self._underway.values())).since < old:
            self._underway.popitem(last=False)
        return Counter(one.replica for one in self._underway.values())

    def _candidate(self, replica: RunningReplica, underway: Counter[str]) -> Candidate:
        unique = replica.replica_id.unique_id
        load, age = _load_of(replica.routing_stats)
        sent = self._in_flight[unique] if _TELLS_END else self.replica_queue_len_cache.get(replica.replica_id) or 0
        in_flight = sent + underway[unique]
        held = frozenset() if load is None else frozenset(load.adapters)
        return Candidate(id=unique, in_flight=in_flight, load=load, load_age=age, adapters=held)

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a request that is sent. Serve does not say which: the first one that this replica was chosen for."""
        super().on_send_request(replica_id)
        unique = replica_id.unique_id
        self._in_flight[unique] += _TELLS_END
        number = next((number for number, one in self._underway.items() if one.replica == unique), None)
        if number is not None:
            self._begin(number, self._underway.pop(number).request, unique)

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:  # noqa: ARG002
        """Take note of a request that went to another replica than the one that was ranked first.

        Serve calls this when a replica has accepted: of a call that is no stream, not before its end.
        """
        number = pending_request.metadata.internal_request_id
        chosen = self._underway.pop(number, None)
        if chosen is not None:
            self._begin(number, chosen.request, replica_id.unique_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Release the request; Serve calls this however it ended, and perhaps before it says that it was routed."""
        unique = replica_id.unique_id
        self._in_flight[unique] = max(self._in_flight[unique] - 1, 0)
        chosen = self._underway.pop(internal_request_id, None)
        if chosen is not None:
            self._begin(internal_request_id, chosen.request, unique)
        entry = self._sent.pop(internal_request_id, None)
        if entry is not None:
            self._end(entry)

    def _begin(self, number: str, request: GenerateRequest, unique: str) -> None:
        if _TELLS_END:
            self._sent[number] = (request, unique)
        if len(self._sent) > _BOUND:
            self._end(self._sent.popitem(last=False)[1])
        self._router.routed(request, Candidate(id=unique))

    def _end(self, entry: tuple[GenerateRequest, str]) -> None:
        self._router.completed(entry[0], Candidate(id=entry[1]), ok=True)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Take the current replicas, and forget those that are gone."""
        super().update_replicas(replicas)
        alive = {replica.replica_id.unique_id for replica in replicas}
        self._doubtful = {known for known in self._doubtful if known.unique_id in alive}
        self._in_flight = Counter({unique: count for unique, count in self._in_flight.items() if unique in alive})
        for key in [key for key, (_, unique) in self._sent.items() if unique not in alive]:
            del self._sent[key]
        self._router.replicas_changed([Candidate(id=unique) for unique in sorted(alive)])


def _request_of(pending: PendingRequest | None) -> GenerateRequest:
    """Return what the router may know of a request: hints of the gateway, or the request of a Python caller."""
    args: Sequence[Any] = () if pending is None else pending.args
    first = args[0] if args else None
    if isinstance(first, GenerateRequest):
        return first
    hints = first.hints if isinstance(first, RelayedRequest) else None
    if hints is None:
        return GenerateRequest(prompt=TextPrompt(text=""), request_id="")
    return GenerateRequest(
        prompt=TextPrompt(text=hints.prefix),
        request_id="",
        model=hints.model,
        adapter=hints.adapter,
        session=hints.session,
    )


def _load_of(stats: dict[str, Any] | None) -> tuple[LoadReport | None, float | None]:
    """Read the load that a replica recorded; ages are by the wall clock, for replicas may be on other machines."""
    if not stats or "running" not in stats:
        return None, None
    held = tuple(stats.get("adapters") or ())
    moment = time.monotonic()
    report = LoadReport(running=stats["running"], waiting=stats["waiting"], timestamp=moment, adapters=held)
    return report, max(0.0, time.time() - stats["written"])
