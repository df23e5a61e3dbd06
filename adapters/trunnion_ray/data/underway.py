"""Tell the job's desk, once a second, how far a replica's blocks have come, and what its log has warned of."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Final

from .counting import count_block
from .desk_client import DeskClient
from .runner import BlockRunner

_SECONDS: Final = 1.0
_LOGGER: Final = "trunnion.batch"
_KEPT: Final = 20
"""Warnings of one second that are passed on."""


class Underway(logging.Handler):
    """Look at a runner on a thread of its own, and take the warnings of this process."""

    def __init__(self, runner: BlockRunner, desk: DeskClient, prices: Mapping[str, float] | None) -> None:
        """Begin. ``prices``: of a million tokens."""
        super().__init__(logging.WARNING)
        self._runner = runner
        self._desk = desk
        self._prices = prices
        self._warned: deque[str] = deque(maxlen=_KEPT)
        self._told = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trunnion-underway", daemon=True)
        logging.getLogger(_LOGGER).addHandler(self)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a warning, and leave it in this process's log as well, which it would not be with this handler alone."""
        self._warned.append(record.getMessage())
        if logging.lastResort is not None and not logging.getLogger().hasHandlers():
            logging.lastResort.handle(record)

    def stop(self) -> None:
        """End it. Idempotent."""
        logging.getLogger(_LOGGER).removeHandler(self)
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_SECONDS):
            with contextlib.suppress(Exception):  # Ray is being stopped, or the desk is started again
                self._tell()

    def _tell(self) -> None:
        parts = {call: count_block(outcomes, {}, self._prices) for call, outcomes in self._runner.open_blocks()}
        warned = [self._warned.popleft() for _ in range(len(self._warned))]
        if parts or warned or self._told:
            self._desk.underway(parts, warned)
        self._told = bool(parts)
