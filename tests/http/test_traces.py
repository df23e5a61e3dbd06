"""One span per inference request: its parent, what it says, how it ends; and none where nobody asked."""

import asyncio
import json
import sys

import httpx
import pytest
from http_fakes import FakeModel, RunningServer

import trunnion
from trunnion.errors import ConfigError, EngineDead
from trunnion_http import HTTPSettings, PipelineModel, create_app
from trunnion_http.openapi.routes import DESCRIBED
from trunnion_http.tracing import OPERATIONS

pytest.importorskip("opentelemetry.sdk.trace", reason="pip install 'trunnion[otel]'")

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=x", "baggage": "customer=blue"}
SECRET = "xyzzy-plugh"
MESSAGES = [{"role": "user", "content": SECRET}]
CHAT = "/v1/chat/completions"


class Spans:
    """Read the finished spans."""

    def __init__(self, exporter):
        self.exporter = exporter

    def all(self):
        return self.exporter.get_finished_spans()

    @property
    def one(self):
        (span,) = self.all()
        return span


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return Spans(exporter)


def web(*models, **settings):
    """Return a client of an app without a server: a request is over when its answer is there."""
    app = create_app(models, HTTPSettings(**settings))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def ask(model, /, *, path=CHAT, headers=None, settings=None, **body):
    async with web(model, **(settings or {})) as client:
        sent = {"messages": MESSAGES} if path == CHAT else {}
        return await client.post(path, json={"model": model.name, **sent, **body}, headers=headers)


async def test_the_parent_comes_from_the_headers_and_the_engine_goes_on_with_our_span(spans):
    model = FakeModel("m")
    assert (await ask(model, headers=HEADERS)).status_code == 200
    span = spans.one
    assert span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert model.last.trace["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert model.last.trace["tracestate"] == "vendor=x"
    assert model.last.trace["baggage"] == "customer=blue"


async def test_without_headers_a_trace_begins_here(spans):
    model = FakeModel("m")
    await ask(model)
    assert spans.one.parent is None
    assert f"{spans.one.context.trace_id:032x}" in model.last.trace["traceparent"]


async def test_what_a_span_says(spans):
    drawn = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "seed": 3, "n": 2, "frequency_penalty": 0.25}
    answer = await ask(FakeModel("m", adapters={"loud"}), **drawn)
    span = spans.one
    assert span.name == "chat m"
    assert span.status.status_code is StatusCode.UNSET
    told = dict(span.attributes)
    assert told.pop("trunnion.request.id") == answer.headers["x-request-id"]
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 3,
        "gen_ai.request.frequency_penalty": 0.25,
        "gen_ai.request.choice.count": 2,
        "gen_ai.output.type": "text",
        "gen_ai.response.model": "m",
        "gen_ai.response.id": answer.json()["id"],
        "gen_ai.response.finish_reasons": ("stop", "stop"),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "url.path": CHAT,
        "url.scheme": "http",
    }


async def test_names_are_those_of_the_conventions(spans):
    """As far as this version of the package knows them."""
    conventions = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI_")}
    await ask(FakeModel("m"), stream=True, temperature=0, top_p=1, top_k=2, max_tokens=3, seed=4, n=2)
    assert {name for name in spans.one.attributes if name.startswith("gen_ai.")} <= known


async def test_an_adapter_is_named_with_its_model(spans):
    await ask(FakeModel("m", adapters={"loud"}), model="loud")
    assert spans.one.attributes["gen_ai.request.model"] == "loud"
    assert spans.one.attributes["gen_ai.response.model"] == "m:loud"
    assert spans.one.name == "chat m:loud"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": SECRET}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5}),
        ("/v1/responses", {"input": SECRET}),
    ],
)
async def test_a_stream_tells_of_its_first_token(spans, path, body):
    async with web(FakeModel("m", pieces=["plover"] * 3, delay=0.02)) as client:
        answer = await client.post(path, json={"model": "m", "stream": True, **body})
    assert answer.status_code == 200
    span = spans.one
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert span.attributes["gen_ai.response.id"] in answer.text
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    (first,) = [event for event in span.events if event.name == "first.token"]
    assert span.start_time < first.timestamp < span.end_time
    assert span.attributes["gen_ai.response.time_to_first_chunk"] >= 0.02
    assert "plover" in answer.text
    assert SECRET not in span.to_json()
    assert "plover" not in span.to_json()


async def test_embeddings_and_scores_have_spans(spans):
    async with web(FakeModel("m")) as client:
        await client.post("/v1/embeddings", json={"input": ["a", "b"]})
        await client.post("/v1/score", json={"text_1": "a", "text_2": "b"})
    embedded, scored = spans.all()
    assert embedded.name == "embeddings m"
    assert embedded.attributes["gen_ai.usage.input_tokens"] == 6
    assert scored.name == "score m"
    assert scored.attributes["error.type"] == "unsupported_feature"


async def test_what_fails_says_with_what(spans):
    async with web(FakeModel("m", refuse=EngineDead(f"died of {SECRET}"))) as client:
        for body in ({"model": "m", "messages": MESSAGES}, {"model": "other", "messages": MESSAGES}, {"messages": 5}):
            await client.post(CHAT, json=body)
    dead, unknown, broken = spans.all()
    assert dead.attributes["error.type"] == "engine_dead"
    assert dead.attributes["http.response.status_code"] == 503
    assert dead.status.status_code is StatusCode.ERROR
    assert SECRET not in dead.to_json()
    assert unknown.attributes["error.type"] == "model_not_found"
    assert unknown.status.status_code is StatusCode.UNSET  # a server's span: the client is at fault
    assert unknown.name == "chat"  # a name that a stranger chose makes no new series
    assert broken.attributes["http.response.status_code"] == 400


async def test_a_stream_that_fails_midway_says_so(spans):
    await ask(FakeModel("m", die_after=(2, EngineDead("it died"))), stream=True)
    span = spans.one
    assert span.attributes["error.type"] == "engine_dead"
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["first.token"]


async def test_a_client_that_leaves(spans):
    model = FakeModel("m", pieces=["x"] * 1000, delay=0.02)
    with RunningServer(create_app([model])) as server:
        body = {"messages": MESSAGES, "stream": True}
        async with httpx.AsyncClient() as client, client.stream("POST", f"{server.url}{CHAT}", json=body) as answer:
            await anext(answer.aiter_lines())
        async with asyncio.timeout(10):
            while not spans.all():
                await asyncio.sleep(0.02)
    assert spans.one.attributes["error.type"] == "client_gone"
    assert spans.one.status.status_code is StatusCode.UNSET


async def test_wrong_keys_are_traced_too(spans, monkeypatch):
    monkeypatch.setenv("TEST_KEYS", "right")
    answer = await ask(FakeModel("m"), settings={"api_keys_env": "TEST_KEYS"})
    assert answer.status_code == 401
    assert spans.one.attributes["http.response.status_code"] == 401


async def test_the_pipelines_mark_and_what_hooks_trace_lie_in_the_span(spans):
    async with trunnion.open_pipeline(trunnion.engine_spec("sim")) as pipeline:
        inner = pipeline.generate

        async def traced(request):
            with trace.get_tracer("test").start_as_current_span("inside"):
                assert baggage.get_baggage("customer") == "blue"
            async for event in inner(request):
                yield event

        model = PipelineModel("m", pipeline)
        model.generate = traced
        await ask(model, headers=HEADERS, max_tokens=2)
    inside, span = spans.all()
    assert inside.parent.span_id == span.context.span_id
    (asked,) = [event for event in span.events if event.name == "engine.asked"]
    assert span.start_time < asked.timestamp < span.end_time


async def test_what_is_not_sampled_is_handed_on_as_such(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(sampler=ALWAYS_OFF))
    model = FakeModel("m")
    await ask(model, headers=HEADERS)
    assert model.last.trace["traceparent"].startswith(f"00-{TRACE}-")
    assert model.last.trace["traceparent"].endswith("-00")


async def test_other_paths_have_none(spans):
    async with web(FakeModel("m")) as client:
        for path in ("/health", "/v1/models", "/v1/chat/completions", "/nowhere"):
            await client.get(path)
    assert spans.all() == ()
    assert {path for path, route in DESCRIBED.items() if route.streams} <= set(OPERATIONS)
    assert set(OPERATIONS) <= set(DESCRIBED)


async def test_off_there_is_no_span_and_the_headers_go_on_as_they_came(spans):
    model = FakeModel("m")
    await ask(model, headers=HEADERS, settings={"traces": False})
    assert spans.all() == ()
    assert model.last.trace == {name: HEADERS[name] for name in ("traceparent", "tracestate")}


async def test_without_a_provider_it_is_off_and_costs_no_import(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert create_app([FakeModel("m")])._observer is None
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert create_app([FakeModel("m")])._observer is None
    assert "opentelemetry.trace" not in sys.modules


async def test_wanted_and_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"pip install 'trunnion\[otel\]'"):
        create_app([FakeModel("m")], HTTPSettings(traces=True))


async def test_under_a_mount_the_route_has_its_prefix(spans):
    sent = []
    body = json.dumps({"messages": MESSAGES}).encode()

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": f"/llm{CHAT}", "root_path": "/llm", "headers": []}
    await create_app([FakeModel("m")])(scope, receive, send)
    assert sent[0]["status"] == 200
    assert spans.one.attributes["http.route"] == f"/llm{CHAT}"
