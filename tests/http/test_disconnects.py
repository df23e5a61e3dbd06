"""A client that hangs up frees the engine's slot, streaming or not."""

import asyncio
import json
import socket

import httpx
import pytest
from http_fakes import FakeModel

from trunnion_http import HTTPSettings, create_app


def post_raw(port, path, body):
    data = json.dumps(body).encode()
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    sock.sendall(head.encode() + data)
    return sock


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/completions", {"prompt": ["x", "y", "z"]}),
    ],
)
@pytest.mark.parametrize("delay", [0.05, 60.0])
def test_hanging_up_frees_the_slot(  # noqa: PLR0917 - pytest fills them in
    running, add_model, caplog, path, prompt, stream, delay
):
    model = add_model(pieces=["x"] * 1000, delay=delay)
    sock = post_raw(running.port, path, {"model": model.name, "stream": stream, **prompt})
    prompts = prompt.get("prompt", "x")
    assert model.wait_taken(len(prompts))
    if stream and delay < 1:
        assert sock.recv(100)
    sock.close()
    assert model.wait_free(1.0)
    assert caplog.text == ""


def test_fifty_hang_up_and_the_rest_is_served(running, web, add_model):
    model = add_model(pieces=["x"] * 10, delay=0.1)
    body = {"model": model.name, "prompt": "x"}
    socks = [post_raw(running.port, "/v1/completions", {**body, "stream": bool(i % 2)}) for i in range(50)]
    assert model.wait_taken(50)
    for sock in socks:
        sock.close()
    assert web.post("/v1/completions", json=body).json()["choices"][0]["text"] == "x" * 10
    assert model.wait_free(1.0)


def test_hanging_up_with_half_a_body_is_quiet(running, web, model, caplog):
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")
    assert web.get("/health").status_code == 200
    assert caplog.text == ""


def test_a_slow_long_request_outlives_the_watch(web, add_model):
    model = add_model(pieces=["x", "y"], delay=0.4)
    for stream in (False, True):
        response = web.post("/v1/completions", json={"model": model.name, "prompt": "x", "stream": stream})
        assert response.status_code == 200
    assert response.text.endswith("data: [DONE]\n\n")


def scope(path="/v1/completions", method="POST"):
    return {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}


class Server:
    """The server's side of ASGI, by hand."""

    def __init__(self, body):
        self.messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self.hung_up = asyncio.Event()
        self.sent = []

    async def receive(self):
        if self.messages:
            return self.messages.pop()
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_the_task_frees_the_slot_and_is_not_swallowed(stream):
    model = FakeModel("m", pieces=["x"] * 100, delay=0.05)
    server = Server({"prompt": "x", "stream": stream})
    task = asyncio.create_task(create_app([model])(scope(), server.receive, server.send))
    await asyncio.sleep(0.12)
    assert model.slots == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.slots == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_ends_the_task_without_an_exception(stream):
    model = FakeModel("m", pieces=["x"] * 100, delay=0.05)
    server = Server({"prompt": "x", "stream": stream})
    app = create_app([model], HTTPSettings(disconnect_interval=0.01))
    task = asyncio.create_task(app(scope(), server.receive, server.send))
    await asyncio.sleep(0.12)
    server.hung_up.set()
    await asyncio.wait_for(task, 1)
    assert task.cancelling() == 0
    assert model.slots == 0
    await asyncio.sleep(0.03)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_interval_bounds_the_notice():
    model = FakeModel("m", pieces=["x"] * 100, delay=0.05)
    server = Server({"prompt": "x"})
    app = create_app([model], HTTPSettings(disconnect_interval=0.5))
    task = asyncio.create_task(app(scope(), server.receive, server.send))
    server.hung_up.set()
    await asyncio.sleep(0.2)
    assert model.slots == 1
    await asyncio.wait_for(task, 1)
    assert model.slots == 0


async def test_short_requests_never_get_a_watcher():
    model = FakeModel("m")
    app = create_app([model])
    server = Server({"prompt": "x"})
    before = len(asyncio.all_tasks())
    await app(scope(), server.receive, server.send)
    assert len(asyncio.all_tasks()) == before
    assert not app.watch._young
    assert server.sent[-1]["more_body"] is False


async def test_a_receive_that_raises_does_not_end_a_good_request(caplog):
    model = FakeModel("m", delay=0.05)
    server = Server({"prompt": "x"})

    async def receive():
        if server.messages:
            return server.messages.pop()
        raise RuntimeError("not like this")

    app = create_app([model], HTTPSettings(disconnect_interval=0.01))
    await app(scope(), receive, server.send)
    assert server.sent[0]["status"] == 200
    assert "goes unnoticed" in caplog.text


async def test_a_receive_that_never_blocks_does_not_spin_the_loop():
    model = FakeModel("m", delay=0.05)
    server = Server({"prompt": "x"})

    async def receive():
        return server.messages[0]

    app = create_app([model], HTTPSettings(disconnect_interval=0.01))
    await asyncio.wait_for(app(scope(), receive, server.send), 5)
    assert server.sent[0]["status"] == 200


def test_keep_alive_connections_survive(running, model):
    with httpx.Client(base_url=running.url) as web:
        for _ in range(3):
            body = {"model": model.name, "prompt": "x", "stream": True}
            assert web.post("/v1/completions", json=body).text.endswith("data: [DONE]\n\n")
            assert web.post("/v1/completions", json={**body, "bogus": 1}).status_code == 400
