"""Hand the request of a line to the app as a server would, in this process and without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from .lines import BatchLine

INSIDE: Final = "trunnion.inside"
"""Key of an ASGI scope, which no client can set: the request is a batch's, and its value says more."""

_App = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Say of a request that comes from a batch what a client's has in its headers.

    Attributes:
        tenant: The name of the key that the batch came with.
        priority: For engines that have priorities, where the line itself names none; lower runs first.
    """

    tenant: str | None = None
    priority: int = 0


_NOBODY: Final = Inside()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Hold an answer.

    Attributes:
        status: The HTTP status.
        body: The body.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds to wait before; None where unknown.
    """

    status: int
    body: bytes
    retryable: bool = False
    retry_after: float | None = None


async def ask(app: _App, line: BatchLine, request_id: str, inside: Inside = _NOBODY) -> Reply:
    """Return what the app answers to a line. Cancellation gives the request up.

    Args:
        app: The ASGI app.
        line: The request.
        request_id: Names it in logs and to the engine.
        inside: Whose it is, and how urgent.
    """
    status = 0
    headers: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    read = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal read
        if read:
            await asyncio.get_running_loop().create_future()  # this client never hangs up; who waits is cancelled
        read = True
        return {"type": "http.request", "body": line.body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update(message["headers"])
        else:
            pieces.append(message.get("body", b""))

    asked = [(b"x-request-id", request_id.encode())]
    scope = {"type": "http", "method": "POST", "path": line.url, "headers": asked, INSIDE: inside}
    await app(scope, receive, send)
    wait = headers.get(b"retry-after-ms")
    return Reply(
        status=status,
        body=b"".join(pieces),
        retryable=headers.get(b"x-should-retry") == b"true",
        retry_after=None if wait is None else int(wait) / 1000,
    )
