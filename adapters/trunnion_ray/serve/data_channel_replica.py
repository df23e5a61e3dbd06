"""Write the frames of a replica's streams to the gateways that asked for them. See :mod:`.data_channel`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any, Final, cast

import msgspec

from .data_channel import BODY, END, HEAD, ReturnAddress, frame
from .relay import ASGIApp, RelayedRequest, one_request, scope_of

_log = logging.getLogger("trunnion.serve")

_CONNECT: Final = 3.0
"""Seconds that connecting to a gateway may take."""


class _Wire(asyncio.Protocol):
    """Be one connection to a gateway. What is written in one turn of the event loop leaves in one piece."""

    def __init__(self) -> None:
        self.users: set[asyncio.Task[Any]] = set()
        self.lost = False
        self._frames: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def hello(self, secret: bytes) -> None:
        self._transport.write(secret)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.lost = True
        self._writable.set()
        for task in self.users:  # nobody reads what they would write
            task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, data: bytes) -> None:
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if not self.lost:
            self._transport.write(b"".join(frames))

    def close(self) -> None:
        self._transport.close()


class Outlet:
    """Keep a replica's connections to gateways."""

    def __init__(self) -> None:
        self._wires: dict[tuple[str, int], asyncio.Task[_Wire]] = {}

    async def answer(self, app: ASGIApp, request: RelayedRequest, to: ReturnAddress) -> bool:
        """Run the app on the request and write its response; return False, with nothing done, if ``to`` is unreachable.

        Cancelling cancels the app; so does the loss of the connection.
        """
        wire = await self._wire(to)
        if wire is None:
            return False
        task = asyncio.current_task()
        assert task is not None
        wire.users.add(task)

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                head = msgspec.msgpack.encode((message["status"], list(message["headers"])))
                await wire.write(frame(HEAD, to.stream, head))
            elif body := message.get("body"):
                await wire.write(frame(BODY, to.stream, body))

        try:
            await app(scope_of(request), one_request(request.body), send)
            await wire.write(frame(END, to.stream, b""))
        finally:
            wire.users.discard(task)
        return True

    async def _wire(self, to: ReturnAddress) -> _Wire | None:
        place = (to.host, to.port)
        opening = self._wires.get(place)
        if opening is None or (opening.done() and (opening.exception() is not None or opening.result().lost)):
            opening = self._wires[place] = asyncio.ensure_future(self._open(to))
        try:
            return await asyncio.shield(opening)
        except (OSError, TimeoutError) as error:
            _log.warning("the gateway's data channel at %s:%d is out of reach: %s", *place, error)
            return None

    async def _open(self, to: ReturnAddress) -> _Wire:
        async with asyncio.timeout(_CONNECT):
            _, wire = await asyncio.get_running_loop().create_connection(_Wire, to.host, to.port)
        wire.hello(to.secret)
        return wire

    def close(self) -> None:
        """Hang up."""
        for opening in self._wires.values():
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result().close()
        self._wires.clear()
