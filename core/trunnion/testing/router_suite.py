"""Assemble the suite that a router plugin passes."""

from __future__ import annotations

import inspect
import json
import random
import tracemalloc
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from trunnion.engine import LoadReport
from trunnion.registry import get_registry
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt, TokensPrompt
from trunnion.router import Candidate, Ranking, Router

from .registration import RegistrationChecks

_BUSY = 10_000
_GROWTH = 400
"""Bytes per request by which an index may still grow once it has seen as many."""


class RouterSuite(RegistrationChecks, standard=True):
    """Hold a router plugin to the contract.

    Attributes:
        plugin: The router's name.
        config: Its settings.
        many: Requests after which its indexes are to be full; as many again must not make them grow.
    """

    kind: ClassVar[str] = "router"
    many: ClassVar[int] = 20_000

    def _build(self) -> Router:
        return get_registry().build_router(self.plugin, json.loads(json.dumps(self.config)))

    def test_it_is_a_router(self) -> None:
        """All four methods are there, and none is awaited: routing does no I/O."""
        router = self._build()
        assert isinstance(router, Router)
        for verb in (router.rank, router.routed, router.completed, router.replicas_changed):
            assert not inspect.iscoroutinefunction(verb)

    def test_every_usable_candidate_comes_once(self) -> None:
        """A ranking holds each candidate with a weight above 0 exactly once, in groups that say why."""
        router, draw = self._build(), random.Random(0)  # noqa: S311 - the same draws every time
        for number in range(200):
            candidates = [_candidate(str(i), draw) for i in range(draw.randrange(8))]
            usable = sorted(candidate.id for candidate in candidates if candidate.weight > 0)
            router.replicas_changed(candidates)
            ranking = router.rank(_request(number), candidates)
            assert sorted(_order(ranking)) == usable
            assert all(group.candidates and group.reason for group in ranking.groups)

    def test_no_candidates_give_an_empty_ranking(self) -> None:
        """Nobody to route to is no error of the router's."""
        ranking = self._build().rank(_request(0), [])
        assert ranking.first is None

    def test_every_kind_of_prompt_is_routed(self) -> None:
        """Messages, text and token ids are all routed, with and without session, adapter and tenant."""
        router, candidates = self._build(), [Candidate(id="a"), Candidate(id="b")]
        for prompt in (
            MessagesPrompt(messages=({"role": "user", "content": "Hello"},)),
            TextPrompt(text=""),
            TokensPrompt(token_ids=(1, 2, 3)),
        ):
            for fields in ({}, {"session": "s", "adapter": "x", "tenant": "t", "cache_salt": "c"}):
                assert len(_order(router.rank(GenerateRequest(prompt=prompt, **fields), candidates))) == 2  # type: ignore[arg-type]

    def test_a_busy_replica_is_avoided(self) -> None:
        """Whatever a router prefers a replica for, one that drowns in requests does not stay first."""
        router = self._build()
        idle = [Candidate(id=str(i)) for i in range(4)]
        router.replicas_changed(idle)
        request, favourite = _request(0), ""
        for _ in range(8):  # let affinity settle
            first = router.rank(request, idle).first
            assert first is not None
            router.routed(request, first)
            router.completed(request, first, ok=True)
            favourite = first.id
        busy = []
        for one in idle:
            running = _BUSY if one.id == favourite else 0
            load = LoadReport(running=running, waiting=0, timestamp=0.0)
            busy.append(Candidate(id=one.id, in_flight=running, load=load, load_age=0.0))
        firsts = [router.rank(request, busy).first for _ in range(20)]
        assert any(one is not None and one.id != favourite for one in firsts)

    def test_candidates_are_left_alone(self) -> None:
        """Ranking changes neither the request nor the candidates it is given."""
        router, candidates, request = self._build(), [Candidate(id="a"), Candidate(id="b", in_flight=3)], _request(1)
        before = (list(candidates), request)
        router.rank(request, candidates)
        assert (candidates, request) == before

    def test_instances_share_nothing(self) -> None:
        """What one router saw does not move another."""
        one, other = self._build(), self._build()
        before = _memory(other)
        candidates = [Candidate(id=str(i)) for i in range(3)]
        for number in range(50):
            request = _request(number)
            first = one.rank(request, candidates).first
            assert first is not None
            one.routed(request, first)
        assert _memory(other) == before

    def test_replicas_that_are_gone_are_forgotten(self) -> None:
        """After a change of replicas only those there are ranked, and routing goes on."""
        router, before, after = self._build(), [Candidate(id="a"), Candidate(id="b")], [Candidate(id="c")]
        router.replicas_changed(before)
        request = _request(2)
        gone = router.rank(request, before).first
        assert gone is not None
        router.routed(request, gone)
        router.replicas_changed(after)
        router.completed(request, gone, ok=False)
        assert _order(router.rank(request, after)) == ["c"]

    def test_indexes_are_bounded(self) -> None:
        """Tens of thousands of different requests do not make it grow without end."""
        router, candidates = self._build(), [Candidate(id=str(i)) for i in range(8)]
        router.replicas_changed(candidates)

        def feed(numbers: range) -> None:
            for number in numbers:
                request = _request(number)
                first = router.rank(request, candidates).first
                assert first is not None
                router.routed(request, first)
                router.completed(request, first, ok=True)

        feed(range(self.many))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            feed(range(self.many, 2 * self.many))
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < _GROWTH * self.many, f"it grew by {grown} bytes"


def _order(ranking: Ranking) -> list[str]:
    return [candidate.id for group in ranking.groups for candidate in group.candidates]


def _candidate(name: str, draw: random.Random) -> Candidate:
    reported = draw.choice([None, draw.randrange(9)])
    load = None if reported is None else LoadReport(running=reported, waiting=draw.randrange(3), timestamp=0.0)
    return Candidate(
        id=name,
        in_flight=draw.randrange(9),
        load=load,
        load_age=None if load is None else draw.random() * 20,
        weight=draw.choice([0.0, 0.5, 1.0, 3.0]),
        adapters=frozenset(draw.sample(["a", "b"], draw.randrange(3))),
    )


def _request(number: int) -> GenerateRequest:
    return GenerateRequest(
        prompt=TextPrompt(text=f"request {number} " + "and the rest of a prompt that is alike " * 8),
        session=f"session-{number % 5000}" if number % 3 else None,
        adapter="a" if number % 7 == 0 else None,
    )


def _memory(value: Any, depth: int = 6) -> Any:
    """Return what an object remembers as plain values; random generators and what lies deeper are left out."""
    if isinstance(value, random.Random) or depth == 0:
        return None
    if isinstance(value, Mapping):
        return {repr(key): _memory(one, depth - 1) for key, one in value.items()}
    if isinstance(value, str | bytes | int | float | bool | None):
        return value
    if isinstance(value, Iterable):
        return [_memory(one, depth - 1) for one in value]
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})
    return {name: _memory(one, depth - 1) for name, one in held.items()}
