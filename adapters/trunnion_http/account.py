"""Keep what the log line and the span of one request tell once it is over. Where both are off nothing is kept."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from trunnion.events import FinishReason, GenerateEvent
from trunnion.requests import GenerateRequest

if TYPE_CHECKING:
    from trunnion.errors import TrunnionError

    from .models import ModelHandle


class StreamFrames(Protocol):
    """Write one stream in a wire format, as :class:`trunnion_http.sse.Frames` does."""

    def feed(self, event: GenerateEvent) -> bytes:
        """Return the bytes of one event; empty if it has nothing for the client."""
        ...

    def end(self, event: GenerateEvent) -> bytes:
        """Return what ends the stream; ``event`` is the last one, which was fed before."""
        ...


class Account:
    """Hold the facts of one request that nobody else keeps. No prompt and no answer is among them.

    Attributes:
        asked: The model as the client named it.
        model: The full name of what answers, ``base`` or ``base:adapter``; empty until it was found.
        adapter: The adapter's name.
        engine: The name of its engine.
        request: The core request; of several prompts the last.
        response_id: What the client sees as the answer's id.
        first: When the first piece of a stream came, ``time.perf_counter()``; 0 until then, and without a stream.
        finish_reasons: Why each choice ended, in the order of choices.
        error: What it failed with.
        carrier: Headers that carry the trace on, for whatever the engine asks in turn.
        span: The request's span, while it is traced.
        trace_id, span_id: Its identifiers, as hexadecimal text.
    """

    __slots__ = (
        "_reasons",
        "adapter",
        "asked",
        "carrier",
        "engine",
        "error",
        "first",
        "model",
        "request",
        "response_id",
        "span",
        "span_id",
        "trace_id",
    )

    def __init__(self) -> None:
        self.asked: str | None = None
        self.model = ""
        self.adapter: str | None = None
        self.engine = ""
        self.request: GenerateRequest | None = None
        self.response_id = ""
        self.first = 0.0
        self.error: TrunnionError | None = None
        self.carrier: dict[str, str] | None = None
        self.span: Any = None
        self.trace_id = self.span_id = ""
        self._reasons: dict[int, FinishReason] = {}

    @property
    def finish_reasons(self) -> list[FinishReason]:
        """Return why each choice ended, in the order of choices."""
        return [reason for _, reason in sorted(self._reasons.items())]

    def found(self, asked: str | None, handle: ModelHandle, adapter: str | None) -> None:
        """Take note of what answers."""
        self.asked = asked
        self.adapter = adapter
        self.model = handle.name if adapter is None else f"{handle.name}:{adapter}"
        info = handle.info
        self.engine = "" if info is None else info.engine

    def ended(self, index: int, reason: FinishReason | None) -> None:
        """Take note of why a choice ended, if it did."""
        if reason is not None:
            self._reasons[index] = reason

    def watching(self, frames: StreamFrames) -> StreamFrames:
        """Return frames that tell this account of what goes through them."""
        return _Watching(frames, self)


class _Watching:
    """Write a stream, and note when it began and how its choices ended."""

    __slots__ = ("_account", "_frames", "end")

    def __init__(self, frames: StreamFrames, account: Account) -> None:
        self._frames = frames
        self._account = account
        self.end = frames.end

    def feed(self, event: GenerateEvent) -> bytes:
        """Return the bytes of one event."""
        choices = event.choices
        if choices and not self._account.first:
            self._account.first = perf_counter()
        for choice in choices:
            if choice.finish_reason is not None:
                self._account.ended(choice.index, choice.finish_reason)
        return self._frames.feed(event)
