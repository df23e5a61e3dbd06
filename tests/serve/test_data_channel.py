"""Streams come back over the data channel whole and in order, and every way in which it can break is told of."""

import asyncio
from types import SimpleNamespace

import pytest
import uvloop

from trunnion.errors import Transient
from trunnion_http import HTTPSettings
from trunnion_http.call import Call
from trunnion_ray.serve import data_channel
from trunnion_ray.serve.data_channel import HEAD, Switchboard, Unreachable, frame
from trunnion_ray.serve.data_channel_replica import Outlet
from trunnion_ray.serve.passing import Passer
from trunnion_ray.serve.relay import Head, RelayedRequest

pytestmark = pytest.mark.asyncio

BIG = 300_000


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request):
    return request.param()


async def app(scope, receive, send):
    """Answer with the body, piece by piece, and wait between them where the path says so."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["path"].encode())]})
    for at in range(0, len(body), 1000):
        await send({"type": "http.response.body", "body": body[at : at + 1000], "more_body": True})
        await asyncio.sleep(0)
    if scope["path"] == "/hang":
        await receive()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def request(body, path="/echo"):
    return RelayedRequest(method="POST", path=path, body=body)


@pytest.fixture
async def board():
    board = Switchboard()
    assert await board.start("127.0.0.1")
    yield board
    board.close()


@pytest.fixture
async def outlet():
    outlet = Outlet()
    yield outlet
    outlet.close()


def ask(board, outlet, body, path="/echo", app=app):
    line = board.line()
    line.follow(asyncio.ensure_future(outlet.answer(app, request(body, path), line.address)))
    return line


def hang(board, outlet):
    """Return the line of an app that hangs, and an event that tells its end."""
    ended = asyncio.Event()

    async def hanging(scope, receive, send):
        try:
            await app(scope, receive, send)
        finally:
            ended.set()

    return ask(board, outlet, b"a", "/hang", hanging), ended


async def read(line):
    pieces = [piece async for piece in line]
    return pieces[0], b"".join(pieces[1:])


async def wait_for(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_many_streams_share_one_connection_and_keep_their_order(board, outlet):
    bodies = [bytes([index]) * (BIG if index == 7 else 2500 + index) for index in range(60)]
    answers = await asyncio.gather(*(read(ask(board, outlet, body)) for body in bodies))
    assert [body for _, body in answers] == bodies
    assert all(head == Head(status=201, headers=[(b"x-path", b"/echo")]) for head, _ in answers)
    assert len(board.connections) == 1
    assert not board.lines


async def test_a_connection_without_the_secret_is_closed(board):
    line = board.line()
    reader, writer = await asyncio.open_connection(line.address.host, line.address.port)
    writer.write(bytes(32) + frame(HEAD, line.address.stream, b"x"))
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert board.lines == {line.address.stream: line}
    assert not line._news.is_set()


async def test_a_gateway_out_of_reach_is_told_at_once_and_the_app_is_not_run(board, outlet):
    line = board.line()
    board.close()
    ran = []

    async def never(scope, receive, send):
        ran.append(scope)

    line.follow(asyncio.ensure_future(outlet.answer(never, request(b"a"), line.address)))
    with pytest.raises(Unreachable):
        await read(line)
    assert not ran
    assert not board.lines


async def test_a_replica_that_hangs_up_in_mid_stream_is_an_error_after_what_came(board, outlet):
    line = ask(board, outlet, b"a" * 1500, "/hang")
    assert isinstance(await anext(line), Head)
    got = b""
    while len(got) < 1500:
        got += await anext(line)
    outlet.close()
    with pytest.raises(Transient):
        await anext(line)
    assert not board.lines


async def test_a_gateway_that_goes_cancels_what_runs_for_it(board, outlet):
    line, ended = hang(board, outlet)
    await anext(line)
    board.close()
    await asyncio.wait_for(ended.wait(), 10)


async def test_cancelling_the_line_cancels_the_app(board, outlet):
    line, ended = hang(board, outlet)
    await anext(line)
    line.cancel()
    await asyncio.wait_for(ended.wait(), 10)
    assert not board.lines


async def test_what_the_call_raises_is_raised_where_the_line_is_read(board, outlet):
    async def broken(scope, receive, send):
        raise ValueError("the app broke")

    with pytest.raises(ValueError, match="the app broke"):
        await read(ask(board, outlet, b"a", app=broken))


async def test_an_end_that_never_comes_is_an_error(board, monkeypatch):
    monkeypatch.setattr(data_channel, "_LATE", 0.05)
    line = board.line()
    done = asyncio.get_running_loop().create_future()
    done.set_result(True)
    line.follow(done)
    with pytest.raises(Transient, match="lost"):
        await anext(line)


async def test_a_new_connection_follows_one_that_was_lost(board, outlet):
    await read(ask(board, outlet, b"a"))
    for transport in list(board.connections):
        transport.close()
    await wait_for(lambda: not board.connections)
    await asyncio.sleep(0.05)
    assert (await read(ask(board, outlet, b"again")))[1] == b"again"


async def test_there_is_no_channel_where_ray_encrypts(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert not await Switchboard().start("127.0.0.1")


class Model:
    """Be a model's handles; remember which was called."""

    name = "m"

    def __init__(self, outlet, app):
        self.called = []
        self.app, self.outlet = app, outlet
        self.relay_apart = SimpleNamespace(remote=self._apart)
        self.relay_stream = SimpleNamespace(remote=self._stream)

    def _apart(self, request, to):
        self.called.append("apart")
        return asyncio.ensure_future(self.outlet.answer(self.app, request, to))

    async def _stream(self, request):
        self.called.append("stream")
        yield Head(status=200, headers=[])
        yield b"by Serve"


async def pass_on(passer, model):
    sent = []

    async def send(message):
        sent.append(message)

    call = Call({"type": "http", "path": "/echo"}, None, send, {})
    await passer.send_on(call, model, request(b"by channel"), streaming=True)
    return b"".join(message.get("body", b"") for message in sent)


async def test_serve_carries_streams_where_the_channel_is_off(outlet):
    model = Model(outlet, app)
    assert await pass_on(Passer(None, 2), model) == b"by Serve"
    assert model.called == ["stream"]


async def test_the_channel_carries_streams_where_it_is_on(board, outlet):
    model = Model(outlet, app)
    assert await pass_on(Passer(board, 2), model) == b"by channel"
    assert model.called == ["apart"]


async def test_serve_carries_streams_of_replicas_that_cannot_connect_and_they_are_not_asked_again_soon(board, outlet):
    board.close()
    model, passer = Model(outlet, app), Passer(board, 0)
    assert await pass_on(passer, model) == b"by Serve"
    assert await pass_on(passer, model) == b"by Serve"
    assert model.called == ["apart", "stream", "stream"]


async def test_a_stream_whose_replica_died_before_the_first_byte_is_sent_again(board, outlet):
    died = []

    async def dying(scope, receive, send):
        if not died:
            died.append(True)
            raise Transient("the replica died")
        await app(scope, receive, send)

    model = Model(outlet, dying)
    assert await pass_on(Passer(board, 1), model) == b"by channel"
    assert model.called == ["apart", "apart"]
    died.clear()
    with pytest.raises(Transient):
        await pass_on(Passer(board, 0), model)


async def test_the_setting_reaches_the_gateway():
    from trunnion_ray.serve import GatewayConfig, ModelConfig, build_openai_app

    for on in (True, False):
        models = [ModelConfig(name=name, engine="sim") for name in "ab"]
        application = build_openai_app(models, gateway=GatewayConfig(data_channel=on), http=HTTPSettings())
        assert application._bound_deployment.init_kwargs == {"retries": 2, "data_channel": on}
