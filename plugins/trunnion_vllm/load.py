"""Keep the engine's load, from its own counts of requests in flight and vLLM's statistics of each step."""

from __future__ import annotations

import time
from typing import Any

from trunnion.engine import LoadReport


class LoadMeter:
    """Hold the latest statistics of every data-parallel rank.

    vLLM reports after a step, so nothing tells that an aborted request left when no step follows. The count of
    sequences in flight is exact at any time and bounds what the last step said.
    """

    def __init__(self, capacity: int) -> None:
        """Start empty; ``capacity`` is the number of sequences that run at once."""
        self.capacity = capacity
        self.in_flight = 0
        self._steps: dict[int, tuple[int, float]] = {}
        self._count = 0

    def on_step(self, rank: int, stats: Any) -> None:
        """Take vLLM's SchedulerStats of one step of one rank."""
        self._count += 1
        self._steps[rank] = (stats.num_running_reqs, stats.kv_cache_usage)

    def report(self, adapters: tuple[str, ...] = ()) -> LoadReport:
        """Return a snapshot. Requests that vLLM has not scheduled yet count as waiting."""
        steps = self._steps.values()
        running = min(sum(step[0] for step in steps), self.in_flight)
        return LoadReport(
            running=running,
            waiting=self.in_flight - running,
            timestamp=time.monotonic(),
            kv_cache_usage=max((step[1] for step in steps), default=0.0) if self.in_flight else 0.0,
            capacity=self.capacity,
            adapters=adapters,
            steps=self._count,
        )
