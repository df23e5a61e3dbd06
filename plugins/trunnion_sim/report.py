"""Sum outcomes up: what a planner looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .fleet import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Hold percentiles of seconds, by nearest rank; None without values."""

    p50: float | None
    p90: float | None
    p99: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Percentiles:
        """Return the percentiles of the values that are not None."""
        known = sorted(value for value in values if value is not None)

        def at(share: float) -> float | None:
            return known[max(0, -(-int(share * len(known) * 100) // 100) - 1)] if known else None

        return cls(p50=at(0.5), p90=at(0.9), p99=at(0.99))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Hold the figures of a run; times in seconds.

    Attributes:
        requests: By status.
        seconds: From the first arrival to the last end.
        requests_per_s, output_tokens_per_s, prompt_tokens_per_s: Of completed requests, over ``seconds``.
        cache_hit_rate: Prompt tokens found in the prefix cache, as a share.
        busiest, idlest: Completed requests of the replica with the most, and of that with the fewest.
    """

    requests: dict[str, int]
    seconds: float
    requests_per_s: float
    output_tokens_per_s: float
    prompt_tokens_per_s: float
    ttft: Percentiles
    tpot: Percentiles
    latency: Percentiles
    queued: Percentiles
    cache_hit_rate: float
    preemptions: int
    busiest: int
    idlest: int

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return asdict(self)


def summarize(outcomes: Sequence[Outcome], *, replicas: int) -> Summary:
    """Return the figures of a run."""
    done = [one for one in outcomes if one.status == "ok"]
    begin = min((one.request.arrival for one in outcomes), default=0.0)
    seconds = max((one.request.arrival + (one.latency or 0.0) for one in done), default=begin) - begin
    per = 1 / seconds if seconds else 0.0
    prompt = sum(one.request.prompt_tokens for one in done)
    counts = Counter(one.replica for one in done)
    by_replica = [counts[number] for number in range(replicas)]
    return Summary(
        requests=dict(sorted(Counter(one.status for one in outcomes).items())),
        seconds=seconds,
        requests_per_s=len(done) * per,
        output_tokens_per_s=sum(one.request.output_tokens for one in done) * per,
        prompt_tokens_per_s=prompt * per,
        ttft=Percentiles.of([one.ttft for one in done]),
        tpot=Percentiles.of([one.tpot for one in done]),
        latency=Percentiles.of([one.latency for one in done]),
        queued=Percentiles.of([one.queued for one in done]),
        cache_hit_rate=sum(one.cached_tokens for one in done) / prompt if prompt else 0.0,
        preemptions=sum(one.preemptions for one in done),
        busiest=max(by_replica, default=0),
        idlest=min(by_replica, default=0),
    )
