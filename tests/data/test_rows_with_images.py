"""Images in rows, through the engine's actor: each wrong one fails its row alone, by its place."""

import base64
import http.server
import json
import threading

import pyarrow as pa
import pytest

from trunnion import MediaPolicy
from trunnion_ray.data import ProcessorConfig

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()
TEXT = {"type": "text", "text": "what is this?"}
WHOLE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


def row(*parts):
    return {"messages": [{"role": "user", "content": [*parts, TEXT]}]}


@pytest.fixture
def endpoint():
    """Serve an endpoint that answers each chat alike, and keeps its messages."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.server.asked.append(body["messages"])
            answer = json.dumps(WHOLE).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def config_of(endpoint, **fields):
    settings = {"base_url": f"http://127.0.0.1:{endpoint.server_port}/v1", "check_endpoint": False}
    return ProcessorConfig(engine="openai", model="m", config=settings, **fields)


def test_bytes_in_arrow_reach_the_endpoint_as_a_data_url(answer, endpoint):
    table = pa.Table.from_pylist([row({"type": "image", "image": PNG}), row(image(DATA)), row()])
    assert pa.types.is_binary(table.schema.field("messages").type.value_type["content"].type.value_type["image"].type)
    rows = answer(table, config=config_of(endpoint))
    assert [one["generated_text"] for one in rows] == ["Hello"] * 3
    assert rows[0]["messages"][0]["content"][0]["image"] == PNG  # the input is kept as it came
    seen = sorted(len(messages[0]["content"]) for messages in endpoint.asked)
    assert seen == [1, 2, 2]
    assert [m[0]["content"] for m in endpoint.asked if len(m[0]["content"]) == 2] == [[image(DATA), TEXT]] * 2


def test_a_wrong_image_fails_its_row_alone(answer, endpoint):
    large = b"\x89PNG\r\n\x1a\n" + b"x" * 100
    parts = [image(DATA), image("data:image/png;base64,@"), image("file:///etc/passwd")]
    parts.append({"type": "image", "image": large})
    rows = answer([row(part) for part in parts], config=config_of(endpoint, media=MediaPolicy(max_bytes=50)))
    assert [one["error"] and one["error"]["param"] for one in rows] == [
        None,
        "messages[0].content[0].image_url.url",
        "messages[0].content[0].image_url.url",
        "messages[0].content[0].image",
    ]
    assert len(endpoint.asked) == 1


def test_an_engine_that_takes_no_images_refuses_those_rows(answer):
    parts = [image(DATA), {"type": "image", "image": PNG}, image("https://images.example/a.png")]
    rows = answer([*map(row, parts), row()])
    assert [one["error"] and (one["error"]["code"], one["error"]["param"]) for one in rows] == [
        *[("unsupported_feature", "media.image")] * 3,
        None,
    ]


def test_the_policy_crosses_with_the_spec():
    assert ProcessorConfig(engine="sim").pipeline_spec().media == MediaPolicy()
    config = ProcessorConfig(engine="sim", media={"allowed_hosts": ["images.example"], "timeout": 3})
    assert config.pipeline_spec().media == MediaPolicy(allowed_hosts=["images.example"], timeout=3)
