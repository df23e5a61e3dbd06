"""Read a candidate's load from its two sources: own counts, and the replica's own report while it is fresh."""

from __future__ import annotations

from trunnion import Candidate


def load_of(candidate: Candidate, max_report_age: float) -> float:
    """Return the requests per weight that the replica would hold with one more; infinite for weight 0.

    With one more, so that of two idle replicas the one with the larger weight comes first. The larger of the two
    sources counts: own counts miss other routers, reports lag behind.
    """
    if candidate.weight <= 0:
        return float("inf")
    count = candidate.in_flight
    report, age = candidate.load, candidate.load_age
    if report is not None and age is not None and age <= max_report_age:
        count = max(count, report.running + report.waiting)
    return (count + 1) / candidate.weight
