"""Work on several files at a time, on daemon threads: a read that hangs must not keep a process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from trunnion.fetch import FetchJob

T = TypeVar("T")


class _AbandonedError(Exception):
    """End the work on one file because another one failed."""


class Crew:
    """Share files out among threads, and count the bytes that are there."""

    def __init__(self, job: FetchJob, *, workers: int, done: int = 0, total: int | None = None) -> None:
        self.job = job
        self._workers = workers
        self._done = done
        self._total = total
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []

    def check(self) -> None:
        """Return if the work is to go on; called before anything is written."""
        self.job.check()
        if self._failures:
            raise _AbandonedError

    def count(self, size: int, file: str) -> None:
        """Count bytes that came (or, below zero, were thrown away), and report them."""
        with self._lock:
            self._done += size
            self.job.report("fetching", self._done, self._total, file)

    def run(self, items: Iterable[T], work: Callable[[T], None]) -> None:
        """Call ``work`` on every item, in order, several at a time.

        Raises:
            TrunnionError: The first failure, once the work on the other files has ended; or why the job was given up.
        """
        waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
        for item in items:
            waiting.put(item)
        names = [f"trunnion-fetch-{number}" for number in range(min(self._workers, waiting.qsize()))]
        threads = [threading.Thread(target=self._work, args=(waiting, work), name=n, daemon=True) for n in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.05)
                self.job.check()  # a thread that hangs in a read is left behind; it writes nothing more
        if self._failures:
            raise self._failures[0]

    def _work(self, waiting: queue.SimpleQueue[T], work: Callable[[T], None]) -> None:
        while not self._failures:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                work(item)
            except _AbandonedError:
                return
            except BaseException as error:  # noqa: BLE001 - raised by run()
                self._failures.append(error)
