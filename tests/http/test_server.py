"""The server around the app: how it stops, and how it writes."""

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

SCRIPT = """
import sys
from http_fakes import FakeModel
from trunnion_http import create_app, serve
serve(create_app([FakeModel("m", pieces=["x"] * 10, delay=0.1)]), port=int(sys.argv[1]), shutdown_timeout=5)
"""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_lets_requests_finish(stop):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(port)]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=8)) as web:
                assert web.get("/ready").status_code == 200
                threading.Timer(0.3, process.send_signal, [stop]).start()
                response = web.post("/v1/completions", json={"prompt": "x", "stream": True})
            assert response.text.endswith("data: [DONE]\n\n")
            process.wait(5)
        finally:
            process.kill()


@pytest.mark.parametrize("stream", [False, True])
def test_the_head_travels_with_the_first_bytes(running, model, stream):
    body = json.dumps({"model": model.name, "prompt": "x", "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        head, _, first = sock.recv(10_000).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Hel" in first


def test_a_head_alone_is_not_held_back(web):
    response = web.head("/health")
    assert response.headers["content-length"] == "15"
    assert response.content == b""
