"""Let vLLM's processes start without running the user's script again.

A spawned process imports the parent's ``__main__`` first. A script that opens an engine at its top level, without
``if __name__ == "__main__"``, would open it again in the child and fail; a guarded one would import everything it
imports, for nothing: vLLM's processes take what they need from their arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn
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
