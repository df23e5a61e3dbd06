"""Define routers: order the replicas for one request, synchronously and without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .engine import LoadReport
from .requests import GenerateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Describe one replica.

    Attributes:
        id: Stable identifier.
        in_flight: Own count of leases that were not released yet.
        load: The replica's last report; None if it never sent one.
        load_age: Seconds since that report was written; None with ``load``.
        weight: Relative capacity; 0 takes no traffic.
        adapters: LoRA adapters it holds.
    """

    id: str
    in_flight: int = 0
    load: LoadReport | None = None
    load_age: float | None = None
    weight: float = 1.0
    adapters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedGroup:
    """Hold candidates that are equally good, and why they stand here."""

    candidates: tuple[Candidate, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Hold the groups, best first. Empty when no candidate may serve the request."""

    groups: tuple[RankedGroup, ...]

    @property
    def first(self) -> Candidate | None:
        """Return the first candidate of the best group."""
        return self.groups[0].candidates[0] if self.groups and self.groups[0].candidates else None


@runtime_checkable
class Router(Protocol):
    """Order candidates. Lives once per process, shares nothing, is built from a name and JSON config."""

    def rank(self, request: GenerateRequest, candidates: Sequence[Candidate]) -> Ranking:
        """Return every usable candidate exactly once, in ordered groups with reasons."""
        ...

    def routed(self, request: GenerateRequest, candidate: Candidate) -> None:
        """Note that the request went to this candidate."""
        ...

    def completed(self, request: GenerateRequest, candidate: Candidate, *, ok: bool) -> None:
        """Note that the request ended."""
        ...

    def replicas_changed(self, candidates: Sequence[Candidate]) -> None:
        """Forget replicas that are gone; keep indexes bounded."""
        ...
