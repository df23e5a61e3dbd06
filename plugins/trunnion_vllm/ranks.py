"""End the ranks of an engine, which its own process has started: one that was killed leaves them behind."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

GRACE: Final = 5.0
"""Seconds that ranks have to notice that their engine is gone; some versions of vLLM hang there for ever."""


def ranks_of(processes: Sequence[Any]) -> list[Any]:
    """Return what the engine's processes have started, as psutil knows it: by number and start time."""
    import psutil  # comes with vLLM

    found: list[Any] = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(process.pid).children(recursive=True)
    return found


def end(ranks: Sequence[Any], grace: float = GRACE) -> None:
    """Wait until ranks are gone, and kill those that take longer than ``grace`` seconds. Blocking."""
    import psutil

    _, left = psutil.wait_procs([rank for rank in ranks if _lives(rank)], timeout=grace)
    left = [rank for rank in left if _lives(rank)]
    for rank in left:
        with contextlib.suppress(psutil.Error):
            rank.kill()
    if left:
        psutil.wait_procs(left, timeout=grace)


def _lives(rank: Any) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        return bool(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE)
    return False
