"""Define stages: what happens to a request before the engine and to its events after it.

One implementation serves a batch of rows and a single request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .engine import EngineInfo
from .errors import TrunnionError
from .events import GenerateEvent
from .requests import GenerateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Tell a stage where it runs: the started engine's description."""

    info: EngineInfo


@runtime_checkable
class Stage(Protocol):
    """Transform requests before the engine: template, tokenize, enrich."""

    def process(self, items: Sequence[GenerateRequest]) -> Sequence[GenerateRequest | TrunnionError]:
        """Return one result per item, in order; an item that fails is answered by its error, never raised.

        Pure Python or native code without awaiting; called from worker threads when items are large, so it must be
        thread-safe.
        """
        ...


@runtime_checkable
class Transducer(Protocol):
    """Transform the events of one request. ``done`` set after ``feed`` ends generation early."""

    done: bool

    def feed(self, event: GenerateEvent) -> Sequence[GenerateEvent]:
        """Return what to pass on for one event; may hold text back."""
        ...

    def finish(self) -> Sequence[GenerateEvent]:
        """Return what was still held back; called once after the last event."""
        ...


@runtime_checkable
class StreamStage(Protocol):
    """Transform events after the engine: detokenize, stop strings, tool calls, reasoning, redaction."""

    def open(self, request: GenerateRequest) -> Transducer | None:
        """Return a transducer for this request; None if there is nothing to do, which then costs nothing.

        ``request`` is what the caller asked for (after the request hooks), before the pipeline rewrote it for the
        engine, but with the prompt as the engine gets it, and with the ``notes`` of hooks and request stages.
        """
        ...
