"""Send a request on to a model's replicas, and to another one where the first died before the first token."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Final

from trunnion.errors import Transient
from trunnion_http.call import Call

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


async def send_on(call: Call, model: RemoteModel, request: RelayedRequest, *, streaming: bool, retries: int) -> None:
    """Answer a call with what a replica answers, byte for byte.

    A replica that dies before it has sent anything is replaced by another one, ``retries`` times. Later it cannot be:
    the client has a part of its answer.

    Raises:
        Exception: What Ray reports of the last replica.
    """
    send = _pass_stream if streaming else _pass_whole
    for attempt in itertools.count(1):
        try:
            await send(call, model, request, last=attempt > retries)
        except Exception as error:
            failure = unwrap(error)
            if call.started or attempt > retries or not isinstance(failure, Transient):
                raise
            _log.info("request %s is sent again, attempt %d: %s", call.request_id, attempt + 1, failure)
            await asyncio.sleep(_PAUSE * attempt)
        else:
            return


async def _pass_whole(call: Call, model: RemoteModel, request: RelayedRequest, *, last: bool) -> None:
    answer = model.whole.relay.remote(request)
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


async def _pass_stream(call: Call, model: RemoteModel, request: RelayedRequest, *, last: bool) -> None:
    pieces = model.streaming.relay_stream.remote(request)
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
