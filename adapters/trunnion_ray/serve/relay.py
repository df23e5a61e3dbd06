"""Carry one HTTP request through a deployment handle, and its response back, as bytes nobody parses on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Headers = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteHints:
    """Say what a router may know of a request: enough for affinity, no more than the gateway read anyway.

    ``prefix`` is the start of the raw JSON of the messages or the prompt.
    """

    model: str
    adapter: str | None = None
    session: str | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedRequest:
    """Hold a request as it came in. The path is the one under the application's route prefix."""

    method: str
    path: str
    query: bytes = b""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    hints: RouteHints | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Hold status and headers of a response."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Hold a whole response."""

    head: Head
    body: bytes


def scope_of(request: RelayedRequest) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": None,
        "server": None,
    }


def one_request(body: bytes) -> Receive:
    """Return an ASGI ``receive`` that gives a body, and then nothing: a hang-up arrives as cancellation."""
    messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Future()
        raise AssertionError

    return receive


class _Connection:
    """Be the server side of one ASGI connection, in memory."""

    def __init__(self, app: ASGIApp, request: RelayedRequest) -> None:
        self.chunks: list[bytes] = []
        self.head: Head | None = None
        self.news = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope_of(request), one_request(request.body), self._send))
        self.task.add_done_callback(lambda _: self.news.set())

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.head = Head(status=message["status"], headers=list(message["headers"]))
        elif body := message.get("body"):
            self.chunks.append(body)
            self.news.set()

    async def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])


async def respond(app: ASGIApp, request: RelayedRequest) -> Response:
    """Run the app on the request and return the whole response. Cancelling cancels the app."""
    connection = _Connection(app, request)
    try:
        await asyncio.wait([connection.task])
    finally:
        await connection.close()
    connection.task.result()
    assert connection.head is not None, "the app ended without a response"
    return Response(head=connection.head, body=b"".join(connection.chunks))


async def stream(app: ASGIApp, request: RelayedRequest) -> AsyncGenerator[Head | bytes, None]:
    """Run the app on the request and yield the head, then the body; what is ready together comes together."""
    connection = _Connection(app, request)
    try:
        headless = True
        while True:
            await connection.news.wait()
            connection.news.clear()
            ended = connection.task.done()
            if headless and connection.head is not None:
                headless = False
                yield connection.head
            if connection.chunks:
                chunks, connection.chunks = connection.chunks, []
                yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if ended:
                break
        connection.task.result()
    finally:
        await connection.close()
