"""Number the KV events of each step and hand them to whoever follows; the latest are kept for those who come late."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

_KEPT: Final = 10_000


class KVFeed:
    """Keep the latest events. A reader that falls behind them is told what it lost."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._events: deque[Mapping[str, Any]] = deque()
        self._dropped = 0
        self._lost: Counter[int] = Counter()
        self._lost_seq: dict[int, int] = {}
        self._pending: list[tuple[int, dict[str, Any]]] = []
        self._seq: Counter[int] = Counter()
        self._news = asyncio.Event()

    def log(self, rank: int, event: dict[str, Any]) -> None:
        """Take an event of the step under way."""
        self._pending.append((rank, event))

    def flush(self) -> None:
        """End the step: its events get one number per rank, counted from 0."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        now = time.time()
        for rank, event in pending:
            self._events.append({"seq": self._seq[rank], "rank": rank, "timestamp": now, **event})
        self._seq.update({rank for rank, _ in pending})
        while len(self._events) > self._kept:
            gone = self._events.popleft()
            self._dropped += 1
            self._lost[gone["rank"]] += 1
            self._lost_seq[gone["rank"]] = gone["seq"]
        self.wake()

    def wake(self) -> None:
        """Let the readers look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def read(self, ended: Callable[[], bool]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield events in order, from the first that is kept, until ``ended`` says so and none is left."""
        at, known = self._dropped, Counter(self._lost)  # of each rank, the events dropped, read or told as lost
        while True:
            if at < self._dropped:
                missed, at = self._lost - known, self._dropped  # what was read lies before all that is kept
                known = Counter(self._lost)
                for rank, count in sorted(missed.items()):
                    yield {"seq": self._lost_seq[rank], "rank": rank, "type": "lost", "missing": count}
            elif at < self._dropped + len(self._events):
                event = self._events[at - self._dropped]
                at += 1
                known[event["rank"]] += 1
                yield event
            elif ended():
                return
            else:
                await self._news.wait()
