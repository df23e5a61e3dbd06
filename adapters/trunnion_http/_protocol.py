"""Send the head of a response together with its first bytes. Knows uvicorn's protocol class (0.34 and later).

ASGI hands a server the head and the body in two messages, uvicorn writes each at once, and uvloop turns each write
into a system call: on a short response, those two calls cost more than everything this package does.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoiningTransport:
    """Hold a response's head back until its first bytes follow, at most until the loop's next turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._write = transport.write
        self._close = transport.close
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info

    def __getattr__(self, name: str) -> Any:
        """Leave the rest to the transport."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, joining a held head with what comes after it."""
        if self._head:
            data, self._head = self._head + data, b""
            self._write(data)
        elif data[:9] == b"HTTP/1.1 " and data[-4:] == b"\r\n\r\n":
            self._head = data
            self._loop.call_soon(self._flush)  # a HEAD request or a slow body: the head goes alone
        else:
            self._write(data)

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._close()

    def _flush(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._write(data)


class JoiningProtocol(HttpToolsProtocol):
    """Speak HTTP/1.1 as uvicorn does, over a :class:`JoiningTransport`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a new connection."""
        joining = JoiningTransport(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(cast("asyncio.Transport", joining))
