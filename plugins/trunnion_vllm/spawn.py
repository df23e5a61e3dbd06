"""Let vLLM's processes start without running the user's script again, and leave their end to who started them.

A spawned process imports the parent's ``__main__`` first. A script that opens an engine at its top level, without
``if __name__ == "__main__"``, would open it again in the child and fail; a guarded one would import everything it
imports, for nothing: vLLM's processes take what they need from their arguments.

A terminal sends Ctrl-C to every process of its foreground group. vLLM's would break off in the middle of a step, each
for itself, and tell at length of the others' death, while the process that started them, interrupted as well, is about
to stop them in order.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, spawn
from typing import Any


@contextmanager
def without_main() -> Iterator[None]:
    """Leave ``__main__`` out of what processes spawned by this thread import, for the length of the block."""
    original, thread = spawn.get_preparation_data, threading.get_ident()

    def trimmed(name: str) -> dict[str, Any]:
        data = original(name)
        if threading.get_ident() == thread:
            data.pop("init_main_from_path", None)
            data.pop("init_main_from_name", None)
        return data

    spawn.get_preparation_data = trimmed
    try:
        yield
    finally:
        spawn.get_preparation_data = original


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes that SIGINT does not reach, for the length of the block; SIGTERM, which ends them, does.

    What a thread starts inherits the signals it blocks. (Ignored, SIGINT would be back: vLLM's processes set handlers.)
    """
    resource_tracker.ensure_running()  # starting it, which comes with the first process, unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
