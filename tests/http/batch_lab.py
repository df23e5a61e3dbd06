"""Make batch files, and wait for batches."""

import contextlib
import json
import time

import openai
from http_fakes import RunningServer
from strict_types import every

from trunnion_http import BatchSettings, HTTPSettings, create_app

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


def line(custom_id, url=CHAT, method="POST", **body):
    body = body or {"model": "m", "messages": [{"role": "user", "content": f"Say {custom_id}"}]}
    return {"custom_id": custom_id, "method": method, "url": url, "body": body}


def jsonl(lines):
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def upload(client, lines, **more):
    data = lines if isinstance(lines, bytes) else jsonl(lines)
    return client.files.create(file=("in.jsonl", data), purpose="batch", **more)


def begin(client, lines, endpoint=CHAT, window="24h", **more):
    made = upload(client, lines)
    return client.batches.create(input_file_id=made.id, endpoint=endpoint, completion_window=window, **more)


def wait(client, batch, until=OVER, seconds=30.0):
    """Ask until the batch is so, and return it; ``until`` are states, or a test of the batch."""
    good = until if callable(until) else lambda seen: seen.status in until
    end = time.monotonic() + seconds
    while True:
        seen = client.batches.retrieve(batch.id)
        list(every(seen))  # what the client's own types do not have would fail here
        if good(seen):
            return seen
        assert time.monotonic() < end, f"still {seen}"
        time.sleep(0.02)


def lines_of(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


@contextlib.contextmanager
def serving(models, folder, *, api_key="none", http=None, **settings):
    """Serve models with a folder for batches; yield the server and a client."""
    app = create_app(models, HTTPSettings(batches=BatchSettings(folder=str(folder), **settings), **(http or {})))
    with RunningServer(app) as server, client_of(server, api_key) as client:
        yield server, client


@contextlib.contextmanager
def client_of(server, api_key="none"):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=api_key, max_retries=0, timeout=20) as client:
        yield client
