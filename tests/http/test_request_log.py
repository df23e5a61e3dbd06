"""One line per request: what it tells, in both forms, and what it never tells."""

import asyncio
import io
import json
import logging
import re
from datetime import datetime

import httpx
import pytest
from http_fakes import FakeModel, RunningServer

import trunnion
from trunnion.errors import EngineDead
from trunnion_http import HTTPSettings, PipelineModel, create_app
from trunnion_http.request_log import REQUESTS, write_to

CHAT = "/v1/chat/completions"
SECRET = "xyzzy-plugh"
MESSAGES = [{"role": "user", "content": SECRET}]


@pytest.fixture
def lines():
    """Return what is written, a list of lines."""
    stream = io.StringIO()
    handler = write_to(stream)
    yield lambda: stream.getvalue().splitlines()
    REQUESTS.removeHandler(handler)
    REQUESTS.propagate = True
    REQUESTS.setLevel(logging.NOTSET)


def web(*models, **settings):
    app = create_app(models, HTTPSettings(log_requests=True, **settings))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_line_of_json_tells_it_all(lines):
    async with web(FakeModel("m", adapters={"loud"})) as client:
        body = {"model": "loud", "messages": MESSAGES, "n": 2}
        answer = await client.post(CHAT, json=body, headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    (line,) = lines()
    told = json.loads(line)
    assert datetime.fromisoformat(told.pop("time")).utcoffset() is not None
    assert told.pop("total_ms") > 0
    assert told == {
        "request_id": "mine",
        "method": "POST",
        "path": CHAT,
        "status": 200,
        "model": "m",
        "adapter": "loud",
        "tenant": None,
        "stream": False,
        "input_tokens": 7,
        "cached_tokens": 4,
        "output_tokens": 6,
        "own_ms": None,
        "ttft_ms": None,
        "finish_reasons": ["stop", "stop"],
        "error": None,
        "client_gone": False,
    }


async def test_a_stream_has_its_times(lines):
    async with trunnion.open_pipeline(trunnion.engine_spec("sim", config={"ttft": 0.05})) as pipeline:
        for metrics in (True, False):
            async with web(PipelineModel("sim", pipeline), metrics=metrics) as client:
                answer = await client.post(CHAT, json={"messages": MESSAGES, "stream": True, "max_tokens": 3})
    assert answer.text.endswith("data: [DONE]\n\n")
    for line in lines():
        told = json.loads(line)
        assert told["stream"] is True
        assert told["request_id"]
        assert told["output_tokens"] == 3
        assert told["finish_reasons"] == ["length"]
        assert 0 < told["own_ms"] < 50 <= told["ttft_ms"] < told["total_ms"]
    assert len(lines()) == 2


async def test_errors_have_their_code(lines):
    broken = FakeModel("broken", die_after=(1, EngineDead("it died")))
    async with web(FakeModel("m"), broken) as client:
        await client.post(CHAT, json={"model": "none", "messages": MESSAGES})
        await client.post(CHAT, json={"model": "broken", "messages": MESSAGES, "stream": True})
        await client.get("/nowhere?key=hunter2")
    unknown, died, nowhere = map(json.loads, lines())
    assert (unknown["status"], unknown["error"], unknown["model"]) == (404, "model_not_found", None)
    assert (died["status"], died["error"], died["finish_reasons"]) == (503, "engine_dead", [])
    assert (nowhere["path"], nowhere["error"]) == ("/nowhere", "unknown_url")


async def test_a_client_that_leaves_is_told(lines):
    model = FakeModel("m", pieces=["x"] * 1000, delay=0.02)
    with RunningServer(create_app([model], HTTPSettings(log_requests=True))) as server:
        body = {"messages": MESSAGES, "stream": True}
        async with httpx.AsyncClient() as client, client.stream("POST", f"{server.url}{CHAT}", json=body) as answer:
            await anext(answer.aiter_lines())
        async with asyncio.timeout(10):
            while not lines():
                await asyncio.sleep(0.02)
    told = json.loads(lines()[0])
    assert told["client_gone"] is True
    assert told["error"] is None
    assert told["output_tokens"] >= 1  # what it was sent was used


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_prompt_and_no_answer_is_told(lines, form, stream):
    async with web(FakeModel("m", pieces=["plover"] * 3), log_format=form) as client:
        body = {"model": "m", "prompt": SECRET, "stream": stream, "user": SECRET, "stop": [SECRET]}
        answer = await client.post(f"/v1/completions?{SECRET}", json=body)
    assert "plover" in answer.text
    assert len(lines()) == 1
    assert SECRET not in lines()[0]
    assert "plover" not in lines()[0]


async def test_a_line_for_people(lines):
    async with web(FakeModel("m"), log_format="text") as client:
        await client.post(CHAT, json={"messages": MESSAGES}, headers={"x-request-id": "mine"})
        await client.get("/v1/models/a%0Ab%20c=d")
    answered, odd = lines()  # two: a path makes no lines of its own
    assert re.fullmatch(
        r"mine POST /v1/chat/completions 200 \d+\.\d ms model=m input_tokens=7 cached_tokens=4 output_tokens=3 "
        r"finish_reasons=stop",
        answered,
    )
    assert r'GET "/v1/models/a\nb c=d" 404' in odd
    assert odd.endswith("error=model_not_found")


async def test_request_ids_of_clients_make_no_words_of_their_own(lines):
    async with web(FakeModel("m"), log_format="text") as client:
        await client.get("/health", headers={"x-request-id": 'x GET / 200 "'})
    assert lines()[0].startswith(r'"x GET / 200 \"" GET /health 200')


async def test_records_have_the_fields_and_it_is_off_unless_asked_for(caplog):
    caplog.set_level(logging.INFO, logger="trunnion.http")
    for wanted in (False, True):
        app = create_app([FakeModel("m")], HTTPSettings(log_requests=wanted))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            await client.get("/v1/models")
        assert bool(caplog.records) is wanted
    (record,) = caplog.records
    assert record.name == "trunnion.http.requests"
    assert record.request["path"] == "/v1/models"


async def test_a_traced_request_names_its_trace(lines, monkeypatch):
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", sdk.TracerProvider())
    parent = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with web(FakeModel("m")) as client:
        await client.post(
            CHAT, json={"messages": MESSAGES}, headers={"traceparent": f"00-{parent}-00f067aa0ba902b7-01"}
        )
    told = json.loads(lines()[0])
    assert told["trace_id"] == parent
    assert re.fullmatch("[0-9a-f]{16}", told["span_id"])


async def test_a_key_is_told_by_its_name(lines, monkeypatch):
    monkeypatch.setenv("TEST_KEYS", "alice: right, other")
    async with web(FakeModel("m"), api_keys_env="TEST_KEYS") as client:
        for key in ("right", "other", "wrong"):
            body = {"messages": MESSAGES}
            await client.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"})
    named, unnamed, wrong = map(json.loads, lines())
    assert named["tenant"] == "alice"
    assert unnamed["tenant"].startswith("key-")
    assert (wrong["tenant"], wrong["status"], wrong["error"]) == (None, 401, "invalid_api_key")
    assert not any(key in line for line in lines() for key in ("right", "other", "wrong"))
