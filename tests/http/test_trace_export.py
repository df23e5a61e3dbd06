"""Where OpenTelemetry's variables ask for an exporter there is one, and what is missing is said."""

import sys

import pytest

from trunnion.errors import ConfigError
from trunnion_http import HTTPSettings, otel
from trunnion_http.otel import flush_traces, trace_export

pytest.importorskip("opentelemetry.sdk.trace", reason="pip install 'trunnion[otel]'")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install 'trunnion[otel]'")

from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
CONSOLE = {"OTEL_TRACES_EXPORTER": "console"}


@pytest.fixture(autouse=True)
def no_provider(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", type(trace._TRACER_PROVIDER_SET_ONCE)())


def make(environment, *, traces=None):
    return trace_export(HTTPSettings(traces=traces), environment)


@pytest.mark.parametrize(
    ("environment", "traces", "made"),
    [
        ({}, None, False),
        ({}, True, True),
        (ENDPOINT, None, True),
        (ENDPOINT, False, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"}, None, True),
        (CONSOLE, None, True),
        ({"OTEL_TRACES_EXPORTER": "none", **ENDPOINT}, None, False),
        ({"OTEL_SDK_DISABLED": "true", **ENDPOINT}, None, False),
    ],
)
def test_the_environment_asks_for_it(environment, traces, made):
    assert (make(environment, traces=traces) is not None) is made


@pytest.mark.parametrize("named", [None, "shop"])
def test_it_is_in_force_once_started_and_names_the_service(monkeypatch, named):
    memory = [InMemorySpanExporter(), InMemorySpanExporter()]
    exporters = iter(memory)
    monkeypatch.setattr(otel, "_exporter", lambda name, environment: next(exporters))
    environment = {"OTEL_TRACES_EXPORTER": "console,otlp"}
    if named is not None:
        environment["OTEL_SERVICE_NAME"] = named
        monkeypatch.setenv("OTEL_SERVICE_NAME", named)
    export = make(environment)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    export.start()
    trace.get_tracer("test").start_span("mine").end()
    flush_traces()
    for exporter in memory:
        (span,) = exporter.get_finished_spans()
        assert span.name == "mine"
        assert span.resource.attributes["service.name"] == (named or "trunnion")


def test_a_provider_that_is_there_stays():
    from opentelemetry.sdk.trace import TracerProvider

    export = make(CONSOLE)
    theirs = TracerProvider()
    trace.set_tracer_provider(theirs)
    export.start()
    assert trace.get_tracer_provider() is theirs
    assert make(CONSOLE) is None


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "smoke"}, "'smoke' is not installed"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon", **ENDPOINT}, "'pigeon' is not known; one of: grpc, http/protobuf"),
    ],
)
def test_what_cannot_be_is_a_warning_unless_it_was_wanted(environment, said, caplog):
    assert make(environment) is None
    assert said in caplog.text
    with pytest.raises(ConfigError, match=said):
        make(environment, traces=True)


def test_without_the_sdk_the_extra_is_named(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert make(ENDPOINT) is None
    assert "pip install 'trunnion[otel]'" in caplog.text
    with pytest.raises(ConfigError, match=r"pip install 'trunnion\[otel\]'"):
        make(ENDPOINT, traces=True)


def test_without_the_exporter_for_grpc_its_package_is_named(monkeypatch):
    monkeypatch.setattr(otel, "entry_points", lambda **_: [])
    with pytest.raises(ConfigError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        make({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", **ENDPOINT}, traces=True)
