"""Frames, probes, lifespan, settings and the directory."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import httpx
import pytest
from http_fakes import FakeModel, RunningServer
from pydantic import ValidationError

import trunnion_http
from trunnion.errors import ConfigError, EngineDead, ModelNotFound
from trunnion_http import HTTPSettings, ModelDirectory, ModelHandle, PipelineModel, create_app


def test_frames_are_server_sent_events(web, model):
    body = {"model": model.name, "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}
    response = web.post("/v1/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    frames = response.content.split(b"\n\n")
    assert frames[-2:] == [b"data: [DONE]", b""]
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames[:-1])
    parsed = [json.loads(frame[6:]) for frame in frames[:-2]]
    assert all(set(p) == {"id", "object", "created", "model", "choices", "usage"} for p in parsed)
    assert [p["usage"] is None for p in parsed] == [True] * 4 + [False]


async def test_one_send_for_each_event():
    model = FakeModel("m")
    sent = []
    body = json.dumps({"prompt": "x", "stream": True, "n": 3}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await create_app([model])(scope, receive, send)
    assert [m["type"] for m in sent] == ["http.response.start"] + ["http.response.body"] * 4
    assert [m["body"].count(b"data: ") for m in sent[1:]] == [3, 3, 3, 4]
    assert [m["more_body"] for m in sent[1:]] == [True, True, True, False]


def test_the_root_path_of_a_mount_is_taken_off():
    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/llm/health", "root_path": "/llm", "headers": []}
        await create_app([FakeModel("m")])(scope, None, send)
        return sent

    assert asyncio.run(run())[0]["status"] == 200


def test_probes(web, running, add_model):
    assert web.get("/health").json() == {"status": "ok"}
    assert web.head("/health").status_code == 200
    assert web.get("/ready").json()["status"] == "ready"
    assert web.get("/version").json()["engines"]["base"] == "fake 1.0"
    model = add_model(unhealthy=EngineDead("it died"))
    response = web.get("/health")
    assert response.status_code == 503
    assert response.json()["models"][model.name]["code"] == "engine_dead"
    model.ready = False
    response = web.get("/ready")
    assert response.status_code == 503
    assert response.json()["models"][model.name] is False
    model.ready = True
    running.app.draining = True
    try:
        assert web.get("/ready").json()["status"] == "draining"
    finally:
        running.app.draining = False


def test_a_closed_app_answers_what_it_has_and_refuses_what_comes():
    app = create_app([FakeModel("m", pieces=["x"] * 10, delay=0.2)])
    body = {"model": "m", "prompt": "hello", "max_tokens": 20, "stream": True}
    with RunningServer(app) as server, httpx.stream("POST", f"{server.url}/v1/completions", json=body) as stream:
        pieces = stream.iter_text()
        said = next(pieces)
        app.close()
        refused = httpx.post(f"{server.url}/v1/completions", json=body)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["message"] == "the server is being stopped"
        assert httpx.get(f"{server.url}/ready").json()["status"] == "draining"
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        assert (said + "".join(pieces)).endswith("data: [DONE]\n\n")


def test_ready_without_models_is_no():
    with RunningServer(create_app({})) as server:
        assert httpx.get(f"{server.url}/ready").status_code == 503
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_lifespan_is_entered_and_left():
    steps = []
    directory = ModelDirectory()

    @asynccontextmanager
    async def lifespan():
        directory.add(FakeModel("late"))
        steps.append("in")
        yield
        steps.append("out")

    with RunningServer(create_app(directory, lifespan=lifespan)) as server:
        assert httpx.get(f"{server.url}/v1/models/late").status_code == 200
        assert steps == ["in"]
    assert steps == ["in", "out"]


def test_body_timeout():
    app = create_app([FakeModel("m")], HTTPSettings(body_timeout=0.2))
    with RunningServer(app) as server, socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n")
        sock.sendall(b"{")
        assert b" 408 " in sock.recv(1000)


def test_settings_are_checked():
    with pytest.raises(ValidationError):
        HTTPSettings(max_body_bytes=0)
    with pytest.raises(ValidationError):
        HTTPSettings(max_bodies=1)
    assert all(field.description for field in HTTPSettings.model_fields.values())


def test_directory():
    one, two = FakeModel("one", adapters={"loud"}), FakeModel("org/two:v1", adapters={"quiet"})
    directory = ModelDirectory([one, two])
    assert isinstance(one, ModelHandle)
    assert directory.resolve("one") == (one, None)
    assert directory.resolve("loud") == (one, "loud")
    assert directory.resolve("org/two:v1") == (two, None)
    assert directory.resolve("org/two:v1:quiet") == (two, "quiet")
    for wrong in ("one:quiet", "quiet:one", "", None):
        with pytest.raises(ModelNotFound):
            directory.resolve(wrong)
    with pytest.raises(ConfigError, match="two models"):
        directory.add(FakeModel("one"))
    one.adapters.discard("loud")
    with pytest.raises(ModelNotFound, match=r"served: one, org/two:v1, quiet"):
        directory.resolve("loud")
    directory.remove("one")
    assert directory.resolve(None) == (two, None)
    assert len(directory) == 1


def test_models_with_slashes_in_their_name(web, add_model):
    add_model(name="org/model")
    assert web.get("/v1/models/org/model").json()["id"] == "org/model"


def test_public_names():
    assert trunnion_http.__all__ == sorted(trunnion_http.__all__)
    assert isinstance(PipelineModel.__doc__, str)


def test_several_models_in_one_app(web, add_model):
    models = [add_model(pieces=[str(i)]) for i in range(3)]
    for i, model in enumerate(models):
        body = {"model": model.name, "prompt": "x"}
        assert web.post("/v1/completions", json=body).json()["choices"][0]["text"] == str(i)
