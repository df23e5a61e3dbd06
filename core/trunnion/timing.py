"""Let whoever sends a request know when it reached the engine, so that our own time can be told from the engine's."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final


class Marks:
    """Hold moments of one request, as ``time.perf_counter()`` tells them.

    Attributes:
        handed: When the engine was first asked; 0 until then.
        queued: Seconds that it waited in the engine's queue. The engine sets it before its last event; None where it
            does not tell.
    """

    __slots__ = ("handed", "queued")

    def __init__(self) -> None:
        self.handed = 0.0
        self.queued: float | None = None


MARKS: Final[ContextVar[Marks | None]] = ContextVar("trunnion_marks", default=None)
"""Set it in the task that runs a request, and the pipeline fills it in."""
