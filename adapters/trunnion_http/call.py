"""Hold one HTTP request on its way through the app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from trunnion.capabilities import Support
from trunnion.engine import EngineInfo
from trunnion.errors import TrunnionError
from trunnion.events import Usage
from trunnion.timing import Marks

from .anthropic.errors import encode_error as encode_anthropic_error
from .anthropic.errors import is_anthropic
from .disconnects import DisconnectWatch, Flight, Receive
from .errors import body_too_large, body_too_slow, encode_error, error_headers
from .settings import HTTPSettings
from .sse import error_frame

if TYPE_CHECKING:
    from .account import Account
    from .batches.ask import Inside
    from .metrics import ModelFigures

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
EVENT_STREAM: Final = (b"content-type", b"text/event-stream; charset=utf-8")
NO_CACHE: Final = (b"cache-control", b"no-cache")
NO_BUFFER: Final = (b"x-accel-buffering", b"no")
"""Tells nginx not to hold the stream back."""


def path_of(scope: Scope) -> str:
    """Return the path under the place where the app is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path")
    return path[len(root) :] if root and path.startswith(root) else path


class ClientGone(Exception):
    """The client hung up before its request was read."""


class Call:
    """Read the body of one request and answer it.

    Attributes:
        also: Further headers of every response.
        status: What the client was told; 0 while it was told nothing.
        began: When it arrived, ``time.perf_counter()``.
        tenant: The name of the key it carries, where keys are asked for.
        inside: What a request of a batch has in place of a key; None for a client's.
        priority: Its priority where its body names none.
        model, figures, marks, usage: What :mod:`trunnion_http.metrics` counts.
        account: What its log line and its span tell beside that; None where both are off.
        error_frame: Writes the event that tells of a failure after a stream began.
    """

    __slots__ = (
        "account",
        "also",
        "began",
        "client_id",
        "error_frame",
        "figures",
        "finished",
        "flight",
        "headers",
        "inside",
        "marks",
        "model",
        "priority",
        "receive",
        "request_id",
        "scope",
        "send",
        "started",
        "status",
        "tenant",
        "usage",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers = headers
        self.request_id = ""
        self.client_id = False
        self.tenant: str | None = None
        self.inside: Inside | None = None
        self.priority = 0
        self.flight: Flight | None = None
        self.started = False
        self.finished = False
        self.also: Headers = []
        self.status = 0
        self.began = 0.0
        self.model = ""
        self.figures: ModelFigures | None = None
        self.marks: Marks | None = None
        self.usage: Usage | None = None
        self.account: Account | None = None
        self.error_frame: Callable[[TrunnionError], bytes] = error_frame

    async def body(self, settings: HTTPSettings) -> bytes:
        """Return the whole body.

        Raises:
            InvalidArgument: It is larger than ``max_body_bytes`` (413) or slower than ``body_timeout`` (408).
            ClientGone: The client hung up.
        """
        limit = settings.max_body_bytes
        declared = self.headers.get(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise body_too_large(limit)
        message = await self.receive()
        if message["type"] != "http.request":
            raise ClientGone
        data: bytes = message.get("body", b"")
        if message.get("more_body", False):
            try:
                async with asyncio.timeout(settings.body_timeout):
                    data = await self._rest(data, limit)
            except TimeoutError as error:
                raise body_too_slow(settings.body_timeout) from error
        if len(data) > limit:
            raise body_too_large(limit)
        return data

    async def _rest(self, first: bytes, limit: int) -> bytes:
        pieces, size = [first], len(first)
        while size <= limit:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientGone
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)
        raise body_too_large(limit)

    def named(self, response_id: str) -> str:
        """Return the id of the answer, and take note of it."""
        if self.account is not None:
            self.account.response_id = response_id
        return response_id

    def rank(self, info: EngineInfo | None) -> None:
        """Take a batch's priority, where the engine has priorities."""
        if self.inside is not None and info is not None and info.capabilities.support("priority") is Support.YES:
            self.priority = self.inside.priority

    def watch(self, watch: DisconnectWatch) -> None:
        """From here on, let the client's hang-up cancel the work."""
        self.flight = watch.enter(self.receive)

    async def answer(
        self, body: bytes, *, status: int = 200, headers: Headers | None = None, content_type: bytes | None = None
    ) -> None:
        """Send a whole response, JSON unless another type is given."""
        self.started = True
        self.status = status
        lines: Headers = [
            JSON if content_type is None else (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id.encode()),
            *self.also,
        ]
        if headers:
            lines += headers
        await self.send({"type": "http.response.start", "status": status, "headers": lines})
        self.finished = True
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin_stream(self) -> None:
        """Send the head of an event stream."""
        self.started = True
        self.status = 200
        headers: Headers = [EVENT_STREAM, NO_CACHE, NO_BUFFER, (b"x-request-id", self.request_id.encode()), *self.also]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def end_stream(self, last: bytes) -> None:
        """Send the last bytes of an event stream."""
        self.finished = True
        await self.send({"type": "http.response.body", "body": last, "more_body": False})

    async def fail(self, error: TrunnionError, headers: Headers | None = None) -> None:
        """Answer with an error: as a response of its own, or as the stream's last event."""
        if self.finished:
            return
        if self.started:
            self.status = error.http_status
            await self.end_stream(self.error_frame(error))
            return
        lines = error_headers(error)
        if is_anthropic(path_of(self.scope)):
            body = encode_anthropic_error(error, self.request_id)
            if self.request_id and not any(name == b"request-id" for name, _ in self.also):
                self.also = [*self.also, (b"request-id", self.request_id.encode())]
        else:
            body = encode_error(error)
        await self.answer(body, status=error.http_status, headers=lines + (headers or []))
