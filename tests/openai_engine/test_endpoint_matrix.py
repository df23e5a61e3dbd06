"""Every way an endpoint can fail, once or always, plain and streamed: an answer after a repetition, or its error."""

import asyncio
import json
import socket
import struct

import pytest
from endpoint_servers import HELLO, STREAM_HEAD, WHOLE, ScriptedServer, answer, ask, chunked, engine_at, http, streamed

from trunnion import collect
from trunnion.errors import (
    AuthenticationFailed,
    InternalError,
    InvalidArgument,
    NotFound,
    Overloaded,
    Transient,
    TrunnionError,
)

HTML = b"<html><h1>Sorry</h1></html>"


async def silent(_, writer):
    await asyncio.sleep(60)


async def reset(_, writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def cut(asked, writer):
    if asked.body.get("stream"):
        writer.write(STREAM_HEAD + chunked(HELLO[0]))
    else:
        writer.write(http(200, json.dumps(WHOLE).encode())[:-20])
    await writer.drain()
    writer.close()


# What the endpoint does -> the error where it always does so, and whether it is tried again.
MATRIX = {
    "400": (answer(400, {}), InvalidArgument, False),
    "401": (answer(401, {}), AuthenticationFailed, False),
    "404": (answer(404, {}), NotFound, False),
    "408": (answer(408, {}), Transient, True),
    "413": (answer(413, {}), InvalidArgument, False),
    "422": (answer(422, {}), InvalidArgument, False),
    "429": (answer(429, {}), Overloaded, True),
    "429 with Retry-After": (answer(429, {}, "Retry-After: 0.01"), Overloaded, True),
    "500 JSON": (answer(500, {"error": {"message": "oops"}}), InternalError, True),
    "500 HTML": (answer(500, HTML, kind="text/html"), InternalError, True),
    "502": (answer(502, HTML, kind="text/html"), Transient, True),
    "503": (answer(503, {}), Transient, True),
    "timeout": (silent, Transient, True),
    "connection reset": (reset, Transient, True),
    "cut body": (cut, Transient, True),
    "wrong content type": (answer(200, HTML, kind="text/html"), InternalError, False),
    "not JSON": (answer(200, b"{oops"), InternalError, False),
}


@pytest.mark.parametrize("final", [True, False], ids=["plain", "stream"])
@pytest.mark.parametrize("once", [True, False], ids=["once", "always"])
@pytest.mark.parametrize("name", MATRIX)
async def test_it_ends_well_or_as_its_error(name, once, final):
    failing, kind, repeated = MATRIX[name]
    well = answer(200, WHOLE) if final else streamed(*HELLO)
    count = 0

    async def script(asked, writer):
        nonlocal count
        count += 1
        await (well if once and count > 1 else failing)(asked, writer)

    settings = {"max_retries": 2, "read_timeout": 0.1}
    async with ScriptedServer(script) as server, engine_at(server.url, **settings) as engine:
        try:
            outcome = await collect(engine.generate(ask(final=final)))
        except TrunnionError as error:
            outcome = error
        assert engine.load().running == engine.load().waiting == 0
    if once and repeated:
        assert outcome.text == "Hello"
    else:
        assert type(outcome) is kind
        assert outcome.retryable is repeated
    assert count == (1 if not repeated else 2 if once else 3)
