"""Send a request on to a model's replicas, and to another one where the first died before the first token."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import Any, Final

from trunnion.errors import Transient
from trunnion_http.call import Call

from .data_channel import Switchboard, Unreachable
from .errors import unwrap
from .relay import Head, RelayedRequest, Response
from .remote_model import RemoteModel

_log = logging.getLogger("trunnion.serve")

_BODY: Final = "http.response.body"
_CHANGING: Final = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
_UNAVAILABLE: Final = 503
_DEAD: Final = b'"engine_dead"'
"""What the body of a 503 holds where another replica can still answer."""
_PAUSE: Final = 0.05
"""Seconds before a request is sent again, times the attempt: Serve has noticed by then which replica is gone."""
_BLOCKED: Final = 60.0
"""Seconds before replicas that cannot connect to the gateway are asked to do so again."""


class Passer:
    """Send requests on to replicas.

    Args:
        board: Where replicas write streams past Serve's handles; None if they cannot.
        retries: How often a request is sent again.
    """

    def __init__(self, board: Switchboard | None, retries: int) -> None:
        self._board = board
        self._retries = retries
        self._blocked: dict[str, float] = {}

    async def send_on(self, call: Call, model: RemoteModel, request: RelayedRequest, *, streaming: bool) -> None:
        """Answer a call with what a replica answers, byte for byte.

        A replica that dies before it has sent anything is replaced by another one, as often as allowed. Later it
        cannot be: the client has a part of its answer.

        Raises:
            Exception: What Ray reports of the last replica.
        """
        for attempt in itertools.count(1):
            last = attempt > self._retries
            try:
                if streaming:
                    await self._stream(call, model, request, last=last)
                else:
                    await _pass_whole(call, model, request, last=last)
            except Exception as error:
                failure = unwrap(error)
                if call.started or last or not isinstance(failure, Transient):
                    raise
                _log.info("request %s is sent again, attempt %d: %s", call.request_id, attempt + 1, failure)
                await asyncio.sleep(_PAUSE * attempt)
            else:
                return

    async def _stream(self, call: Call, model: RemoteModel, request: RelayedRequest, *, last: bool) -> None:
        if self._board is not None and time.monotonic() >= self._blocked.get(model.name, 0.0):
            line = self._board.line()
            line.follow(model.relay_apart.remote(request, line.address))
            try:
                await _pass_stream(call, model, line, last=last)
            except Unreachable:
                _log.warning("replicas of %r cannot connect to the gateway; Serve carries their streams", model.name)
                self._blocked[model.name] = time.monotonic() + _BLOCKED
            else:
                return
        await _pass_stream(call, model, model.relay_stream.remote(request), last=last)


async def _pass_whole(call: Call, model: RemoteModel, request: RelayedRequest, *, last: bool) -> None:
    answer = model.relay.remote(request)
    try:
        response: Response = await answer
    except asyncio.CancelledError:
        answer.cancel()
        raise
    head = response.head
    if not last and head.status == _UNAVAILABLE and _DEAD in response.body:
        raise _engine_died(model)
    if request.path in _CHANGING:
        await model.look()
    call.started = call.finished = True
    call.status = head.status
    await call.send({"type": "http.response.start", "status": head.status, "headers": head.headers})
    await call.send({"type": _BODY, "body": response.body, "more_body": False})


async def _pass_stream(call: Call, model: RemoteModel, pieces: Any, *, last: bool) -> None:
    """Pass on head and bytes as they come; ``pieces`` is a :class:`Line` or Serve's generator."""
    done = False
    refused: Head | None = None
    try:
        async for piece in pieces:
            if isinstance(piece, Head):
                if piece.status == _UNAVAILABLE and not last:
                    refused = piece  # no stream, but a whole error, which comes in one piece
                    continue
                await _begin(call, piece)
            else:
                if refused is not None:
                    if _DEAD in piece:
                        raise _engine_died(model)
                    await _begin(call, refused)
                    refused = None
                await call.send({"type": _BODY, "body": piece, "more_body": True})
        done = True
    finally:
        if not done:
            pieces.cancel()
    call.finished = True
    await call.send({"type": _BODY, "body": b"", "more_body": False})


async def _begin(call: Call, head: Head) -> None:
    call.started, call.status = True, head.status
    await call.send({"type": "http.response.start", "status": head.status, "headers": head.headers})


def _engine_died(model: RemoteModel) -> Transient:
    return Transient(f"the engine of a replica of {model.name!r} died")
