"""What `trunnion serve` tells of requests: lines on stdout, and spans to a collector."""

import json
import signal
import urllib.request

import pytest
from cli_lines import wait_for_line

from collector import collecting

pytestmark = pytest.mark.slow

SIM = ("serve", "some-model", "--engine", "sim", "--port", "0")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def url_of(process):
    return wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]


def ask(url, **headers):
    body = json.dumps({"messages": [{"role": "user", "content": "xyzzy"}], "max_tokens": 2}).encode()
    sent = {"content-type": "application/json", "x-request-id": "mine", **headers}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body, sent), timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def collector():
    with collecting() as made:
        yield made


def test_lines_of_requests_are_all_there_is_on_stdout(cli):
    process = cli.start(*SIM, "--log-requests", "json")
    ask(url_of(process))
    result = cli.interrupt(process, signal.SIGINT)
    (line,) = result.out.splitlines()
    told = json.loads(line)
    assert (told["request_id"], told["model"], told["output_tokens"]) == ("mine", "some-model", 2)
    assert "xyzzy" not in result.out + result.err


def test_lines_for_people_and_none_unless_asked_for(cli):
    process = cli.start(*SIM, "--log-requests", "text")
    ask(url_of(process))
    assert cli.interrupt(process, signal.SIGINT).out.startswith("mine POST /v1/chat/completions 200 ")
    process = cli.start(*SIM)
    ask(url_of(process))
    assert cli.interrupt(process, signal.SIGINT).out == ""


def test_spans_reach_the_collector_before_the_end(cli, collector):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    process = cli.start(*SIM, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    answer = ask(url_of(process), traceparent=f"00-{TRACE}-{PARENT}-01")
    cli.interrupt(process, signal.SIGINT)
    ((span, resource),) = collector.spans
    assert resource["service.name"] == "trunnion"
    assert span.name == "chat some-model"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    told = {pair.key: pair.value for pair in span.attributes}
    assert told["gen_ai.response.id"].string_value == answer["id"]
    assert told["gen_ai.usage.output_tokens"].int_value == 2


def test_a_collector_that_is_away_holds_nothing_up(cli):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    process = cli.start(*SIM, "--traces", env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    ask(url_of(process))
    assert cli.interrupt(process, signal.SIGINT, timeout=10).code == 130


def test_no_traces_is_no_traces(cli, collector):
    process = cli.start(*SIM, "--no-traces", env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    ask(url_of(process))
    cli.interrupt(process, signal.SIGINT)
    assert collector.bodies == []


def test_an_exporter_that_is_not_there_is_said_before_the_engine_starts(cli):
    env = {"OTEL_TRACES_EXPORTER": "smoke"}
    result = cli.run(*SIM, "--traces", "--set", "startup_seconds=30", env=env)
    assert result.code == 2
    assert "error: the trace exporter 'smoke' is not installed" in result.err


def test_the_page_is_told_and_can_be_off(cli):
    process = cli.start(*SIM)
    root = url_of(process).removesuffix("v1")
    wanted = urllib.request.Request(root, headers={"accept": "text/html"})
    with urllib.request.urlopen(wanted) as answer:
        assert answer.headers["content-type"].startswith("text/html")
    cli.interrupt(process, signal.SIGINT)
    process = cli.start(*SIM, "--no-page")
    said = wait_for_line(process.stderr, "Ctrl-C stops it")
    assert "page:" not in said
    cli.interrupt(process, signal.SIGINT)
