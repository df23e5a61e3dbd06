"""Count what is in flight."""

from __future__ import annotations

import asyncio
import time

from trunnion.engine import LoadReport


class LoadMeter:
    """Count sequences in flight on the event loop; what the engine's thread says of its last step fills in the rest."""

    def __init__(self) -> None:
        """Start empty."""
        self.capacity = 0
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

    async def drained(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long."""
        if seconds > 0 and self._in_flight:
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            except TimeoutError:
                pass

    def report(self, step: tuple[int, float], adapters: tuple[str, ...]) -> LoadReport:
        """Return a snapshot; ``step`` is the sequences in the last step, and the share of the cache it left in use.

        The count in flight is exact at any time and bounds what the last step said.
        """
        running = min(step[0], self._in_flight)
        return LoadReport(
            running=running,
            waiting=self._in_flight - running,
            timestamp=time.monotonic(),
            kv_cache_usage=step[1] if self._in_flight else 0.0,
            capacity=self.capacity,
            adapters=adapters,
        )
