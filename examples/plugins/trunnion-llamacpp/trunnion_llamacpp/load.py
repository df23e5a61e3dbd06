"""Count what is in flight, on the event loop."""

from __future__ import annotations

import asyncio
import time

from trunnion import LoadReport


class LoadMeter:
    """Count sequences in flight; what the engine's thread says of its last step fills in the rest."""

    def __init__(self) -> None:
        """Start empty."""
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, sequences: int) -> None:
        """Count sequences that came."""
        self._in_flight += sequences
        self._idle.clear()

    def remove(self, sequences: int) -> None:
        """Count sequences that ended."""
        self._in_flight -= sequences
        if not self._in_flight:
            self._idle.set()

    @property
    def in_flight(self) -> int:
        """Return the number of sequences in flight."""
        return self._in_flight

    async def drained(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long."""
        if seconds > 0 and self._in_flight:
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            except TimeoutError:
                pass

    def report(self, step: tuple[int, int, float], *, capacity: int, adapters: tuple[str, ...]) -> LoadReport:
        """Return a snapshot; ``step`` is what ran and waited at the last step, and the share of the cache in use."""
        running = min(step[0], self._in_flight)
        return LoadReport(
            running=running,
            waiting=self._in_flight - running,
            timestamp=time.monotonic(),
            kv_cache_usage=step[2] if self._in_flight else 0.0,
            capacity=capacity,
            adapters=adapters,
        )
