"""Call something every now and then, on a thread of its own, until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

_JOIN_SECONDS: Final = 3.0


class Ticker:
    """Call a function again and again. Neither a busy event loop nor a slow row holds it up."""

    def __init__(self, tick: Callable[[], None], seconds: float, name: str) -> None:
        """Start nothing.

        Args:
            tick: What is called; it must come back soon.
            seconds: Between the calls, and before the first one.
            name: Of the thread.
        """
        self._tick = tick
        self._seconds = seconds
        self._name = name
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to call."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Call no more, and wait for a call that has begun. Idempotent."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self._tick()
