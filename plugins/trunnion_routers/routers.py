"""Route by load alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

from trunnion import Candidate, GenerateRequest, RankedGroup, Ranking

from .config import LeastLoadedConfig, PowerOfTwoConfig
from .load import load_of


class LeastLoaded:
    """Order replicas by load; those with the same load form one group, those of weight 0 are left out."""

    def __init__(self, config: LeastLoadedConfig) -> None:
        self._max_age = config.max_report_age

    def rank(self, request: GenerateRequest, candidates: Sequence[Candidate]) -> Ranking:  # noqa: ARG002
        """Return groups of equal load, the lightest first."""
        by_load: dict[float, list[Candidate]] = {}
        for candidate in candidates:
            if candidate.weight > 0:
                by_load.setdefault(load_of(candidate, self._max_age), []).append(candidate)
        groups = (RankedGroup(candidates=tuple(by_load[load]), reason=f"load {load:g}") for load in sorted(by_load))
        return Ranking(groups=tuple(groups))

    def routed(self, request: GenerateRequest, candidate: Candidate) -> None:
        """Keep nothing: the caller counts its leases."""

    def completed(self, request: GenerateRequest, candidate: Candidate, *, ok: bool) -> None:
        """Keep nothing."""

    def replicas_changed(self, candidates: Sequence[Candidate]) -> None:
        """Keep nothing."""


class PowerOfTwo(LeastLoaded):
    """Compare two replicas drawn at random; the rest follow by load. Avoids herds when reports are stale."""

    def __init__(self, config: PowerOfTwoConfig) -> None:
        super().__init__(config)
        self._random = random.Random(config.seed)  # noqa: S311 - load balancing, not cryptography

    def rank(self, request: GenerateRequest, candidates: Sequence[Candidate]) -> Ranking:
        """Return the lighter of two random replicas, then the other, then the rest by load."""
        usable = [candidate for candidate in candidates if candidate.weight > 0]
        drawn = self._random.sample(usable, k=min(2, len(usable)))
        drawn.sort(key=lambda candidate: load_of(candidate, self._max_age))
        first = tuple(RankedGroup(candidates=(candidate,), reason="power of two") for candidate in drawn)
        taken = {candidate.id for candidate in drawn}
        rest = super().rank(request, [candidate for candidate in usable if candidate.id not in taken])
        return Ranking(groups=first + rest.groups)
