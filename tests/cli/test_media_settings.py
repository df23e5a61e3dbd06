"""--media reaches the pipeline, wherever the engine runs; the engine is an endpoint that answers each chat alike."""

import base64
import http.server
import json
import threading
import urllib.error
import urllib.request

import pytest
from cli_lines import wait_for_line

pytestmark = pytest.mark.slow
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"picture").decode()
MESSAGES = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]
PLACE = "messages[0].content[0].image_url.url"
WHOLE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}


@pytest.fixture
def endpoint():
    """Serve an endpoint; yield the arguments that name it as the engine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            answer = json.dumps(WHOLE).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    yield ("m", "--engine", "openai", "--set", f"base_url={url}", "--set", "check_endpoint=false")
    server.shutdown()
    server.server_close()


def errors(cli, endpoint, *more):
    """Return where each row of a run is wrong."""
    cli.write("in.jsonl", [{"messages": MESSAGES}, {"messages": [{"role": "user", "content": "Hi"}]}])
    result = cli.run("run", "in.jsonl", "out.jsonl", *endpoint, "--overwrite", *more, timeout=120)
    assert result.code == 0, result.err
    return [row["error"] and row["error"]["param"] for row in cli.read("out.jsonl")]


def test_run_takes_them(cli, endpoint):
    assert errors(cli, endpoint) == [None, None]
    assert errors(cli, endpoint, "--media", "max_bytes=10") == [PLACE, None]


@pytest.mark.ray
def test_run_on_ray_takes_them(cli, endpoint):
    assert errors(cli, endpoint, "--ray", "--media", "max_bytes=10") == [PLACE, None]


def serve(cli, endpoint, *more):
    process = cli.start("serve", *endpoint, "--port", "0", "--media", "max_bytes=10", *more)
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    body = json.dumps({"messages": MESSAGES}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as answered:
        assert answered.code == 400
        assert json.load(answered)["error"]["param"] == PLACE
    assert cli.interrupt(process, timeout=60).code == 130


def test_serve_takes_them(cli, endpoint):
    serve(cli, endpoint)


@pytest.mark.ray
def test_serve_on_ray_takes_them(cli, endpoint):
    serve(cli, endpoint, "--ray")


@pytest.mark.parametrize(
    ("setting", "said"),
    [("hosts=example.com", "hosts"), ("allowed_hosts=https://a/", "no host"), ("max_bytes=none", "max_bytes")],
)
def test_wrong_settings_are_refused(cli, endpoint, setting, said):
    cli.write("in.jsonl", [{"prompt": "x"}])
    result = cli.run("run", "in.jsonl", "out.jsonl", *endpoint, "--media", setting)
    assert result.code == 2
    assert said in result.err
