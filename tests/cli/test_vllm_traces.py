"""vLLM goes on with the trace of a request: its span lies below ours, and ours below the caller's."""

import json
import urllib.request

import pytest
from cli_lines import wait_for_line

import trunnion_demo
from collector import collecting

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_spans_of_vllm_lie_below_ours(cli):
    pytest.importorskip("vllm")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with collecting() as collector:
        process = cli.start(
            "serve", trunnion_demo.model_path(), "--engine", "vllm", "--name", "demo", "--port", "0",
            "--set", "enforce_eager=true", "--set", "max_model_len=512",
            "--set", f"engine_kwargs.otlp_traces_endpoint={collector.url}/v1/traces", env=ENV,
        )  # fmt: skip
        url = wait_for_line(process.stderr, "Ctrl-C stops it").rpartition("ready: ")[2].partition(" at ")[2].split()[0]
        body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 5}
        headers = {"content-type": "application/json", "traceparent": f"00-{TRACE}-{PARENT}-01"}
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
        cli.interrupt(process, timeout=60)
        spans = [span for span, _ in collector.spans if span.trace_id.hex() == TRACE]
    (ours,) = [span for span in spans if span.name == "chat demo"]
    (theirs,) = [span for span in spans if span.name == "llm_request"]
    assert ours.parent_span_id.hex() == PARENT
    assert theirs.parent_span_id == ours.span_id
