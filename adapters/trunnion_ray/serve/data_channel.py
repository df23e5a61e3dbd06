"""Bring a stream's bytes from a replica to the gateway over a connection of their own, past Ray Serve's handles.

Serve still chooses the replica, counts the request, cancels it and tells of the replica's death: one call of a method
that returns when the stream has ended. What it does not do is carry every event, which costs it a fifth of a
millisecond on either side. The gateway listens; a replica connects once and writes the frames of all its streams:

    kind (1 byte), stream (8 bytes), length of the payload (4 bytes), payload

after a secret that the gateway has sent with each request.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import struct
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from trunnion.errors import Transient

from .errors import replica_gone
from .relay import Head

_log = logging.getLogger("trunnion.serve")

_FRAME: Final = struct.Struct("!BQI")
HEAD: Final = 0
BODY: Final = 1
END: Final = 2
_SECRET: Final = 32
_LATE: Final = 10.0
"""Seconds that a stream's last bytes may come after the word that it ended."""
_read_head = msgspec.msgpack.Decoder(tuple[int, list[tuple[bytes, bytes]]]).decode


def frame(kind: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return _FRAME.pack(kind, stream, len(payload)) + payload


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """Say where a stream's frames are awaited."""

    host: str
    port: int
    secret: bytes
    stream: int


class Unreachable(Exception):
    """The replica cannot connect to the gateway; Serve has to carry the stream."""


class Line:
    """Be one stream's frames, in order: the head, then bytes; what is there together comes together.

    Attributes:
        source: The connection that its frames come by; None before the first.
    """

    def __init__(self, board: Switchboard, address: ReturnAddress) -> None:
        self._board = board
        self.address = address
        self._head: Head | None = None
        self._pieces: list[bytes] = []
        self._ended = False
        self._failure: BaseException | None = None
        self._news = asyncio.Event()
        self._call: Any = None
        self._settling: asyncio.Task[None] | None = None
        self.source: object = None

    def follow(self, call: Awaitable[bool]) -> None:
        """Hear from the call that makes the replica write: it returns False if the replica cannot connect."""
        self._call = call
        self._settling = asyncio.ensure_future(self._settle(call))

    async def _settle(self, call: Awaitable[bool]) -> None:
        try:
            if not await call:
                self.fail(Unreachable())
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whoever reads the line raises it
            self.fail(error)
        else:
            if not self._ended:
                await asyncio.sleep(_LATE)
                self.fail(Transient("the end of a replica's answer was lost on its way to the gateway"))

    def take(self, kind: int, payload: bytes) -> None:
        """Take a frame."""
        if kind == HEAD:
            status, headers = _read_head(payload)
            self._head = Head(status=status, headers=headers)
        elif kind == BODY:
            self._pieces.append(payload)
        else:
            self._ended = True
        self._news.set()

    def fail(self, error: BaseException) -> None:
        """Let the reader fail once it has read what is there."""
        if self._failure is None and not self._ended:
            self._failure = error
            self._news.set()

    def __aiter__(self) -> Line:
        return self

    async def __anext__(self) -> Head | bytes:
        """Return the head, then bytes.

        Raises:
            Unreachable: The replica cannot connect; nothing was done.
            Exception: What Ray reports of the call, or that the connection broke.
        """
        while True:
            if self._head is not None:
                head, self._head = self._head, None
                return head
            if self._pieces:
                pieces, self._pieces = self._pieces, []
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._ended:
                self.close()
                raise StopAsyncIteration
            if self._failure is not None:
                self.close()
                raise self._failure
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Await nothing more."""
        self._board.drop(self.address.stream)
        if self._settling is not None and self._ended:
            self._settling.cancel()

    def cancel(self) -> None:
        """Let Serve cancel what the replica does, and await nothing more."""
        self.close()
        if self._call is not None:
            self._call.cancel()
        if self._settling is not None:
            self._settling.cancel()


class _Incoming(asyncio.Protocol):
    """Read one replica's frames."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._data = bytearray()
        self._known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._board.connections.add(transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._known:
            if len(self._data) < _SECRET:
                return
            if not hmac.compare_digest(bytes(self._data[:_SECRET]), self._board.secret):
                _log.warning("a connection to the gateway's data channel did not know its secret")
                self._transport.close()
                self._data.clear()
                return
            self._known = True
            del self._data[:_SECRET]
        self._read()

    def _read(self) -> None:
        data, at = self._data, 0
        while len(data) - at >= _FRAME.size:
            kind, stream, length = _FRAME.unpack_from(data, at)
            start = at + _FRAME.size
            if len(data) - start < length:
                break
            at = start + length
            if (line := self._board.lines.get(stream)) is not None:
                line.source = self
                line.take(kind, bytes(data[start:at]))
        del data[:at]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._board.connections.discard(self._transport)
        for line in self._board.lines.values():
            if line.source is self:
                line.fail(replica_gone())


class Switchboard:
    """Listen for the replicas' connections, and know which stream is whose. Belongs to one event loop."""

    def __init__(self) -> None:
        self.secret = secrets.token_bytes(_SECRET)
        self.lines: dict[int, Line] = {}
        self.connections: set[asyncio.BaseTransport] = set()
        self._server: asyncio.Server | None = None
        self._host, self._port, self._last = "", 0, 0

    async def start(self, host: str) -> bool:
        """Listen on a free port of ``host``; return whether that is possible.

        Where Ray encrypts what its processes say to each other, there is no channel: it would be in the clear.
        """
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return False
        try:
            self._server = await asyncio.get_running_loop().create_server(lambda: _Incoming(self), host, 0)
        except OSError as error:
            _log.warning("no data channel, streams take Serve's way: %s", error)
            return False
        self._host, self._port = host, self._server.sockets[0].getsockname()[1]
        return True

    def line(self) -> Line:
        """Return a new stream's line."""
        self._last += 1
        line = Line(self, ReturnAddress(self._host, self._port, self.secret, self._last))
        self.lines[self._last] = line
        return line

    def drop(self, stream: int) -> None:
        """Forget a stream; frames that come for it are thrown away."""
        self.lines.pop(stream, None)

    def close(self) -> None:
        """Stop listening, and hang up."""
        if self._server is not None:
            self._server.close()
        for transport in list(self.connections):
            transport.close()
