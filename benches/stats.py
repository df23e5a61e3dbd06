"""Compare two series measured in turn: ratios pair by pair, their median, and a bootstrap interval."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratio:
    """Hold the median of the pairs' ratios with its 90 % bootstrap interval."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.pairs}"


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], *, rounds: int = 5000) -> Ratio:
    """Return ours / theirs, pair by pair. The bootstrap draws pairs with replacement, from a fixed seed."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b]
    if not ratios:
        return Ratio(0.0, 0.0, 0.0, 0)
    source = random.Random(0)
    medians = sorted(statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(rounds))
    return Ratio(
        median=statistics.median(ratios),
        low=medians[int(0.05 * rounds)],
        high=medians[int(0.95 * rounds) - 1],
        pairs=len(ratios),
    )
