"""Transcriptions over every topology: the gateway finds the model in the form, and passes the form on as it is."""

import socket

import httpx
import openai
import pytest

from .conftest import wait_until

pytestmark = pytest.mark.ray

PATH = "/v1/audio/transcriptions"
OTHER = "other/model-1.5"
WAV = b"RIFF\x00\x00\x00\x00WAVE" + bytes(range(256)) * 4000
"""A megabyte, which a handle does not carry within its message."""


@pytest.fixture(params=["one", "many"])
def app(request):
    return request.param


def client(lab, app):
    return openai.OpenAI(base_url=lab.url(app) + "/v1", api_key="unused", max_retries=0)


def test_every_topology_hears_the_same(lab, app):
    with client(lab, app) as api:
        made = api.audio.transcriptions.create(model="m", file=("a.wav", WAV), language="en")
        again = api.audio.transcriptions.create(model="m", file=("a.wav", WAV), language="en", response_format="text")
    assert made.text
    assert made.text == again
    assert made.usage.input_tokens == -(-len(WAV) // 1280)


def test_the_model_is_read_from_the_form(lab):
    with client(lab, "many") as api:
        first, second = (api.audio.transcriptions.create(model=name, file=("a.wav", WAV)).text for name in ("m", OTHER))
    assert first != second, "each has a seed of its own"


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({}, 404, "model", "model_not_found"),
        ({"model": "nobody"}, 404, "model", "model_not_found"),
        ({"model": "loud"}, 400, "model", "unsupported_feature"),
        ({"model": ["m", "m"]}, 400, "model", "invalid_argument"),
        ({"model": "m", "colour": "red"}, 400, "colour", "invalid_argument"),
        ({"model": "m", "response_format": "srt"}, 400, "response_format", "unsupported_feature"),
    ],
)
def test_refusals_keep_openais_envelope(proxy_lab, fields, status, param, code):
    url = proxy_lab.url("many") + PATH
    response = httpx.post(url, data=fields, files={"file": ("a.wav", WAV)}, timeout=30)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code), response.text


@pytest.mark.parametrize("body", [b"", b"{}", b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nm'])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=XX"])
def test_what_is_no_form_is_refused_by_the_gateway(proxy_lab, body, kind):
    response = httpx.post(proxy_lab.url("many") + PATH, content=body, headers={"content-type": kind}, timeout=30)
    assert response.status_code == 400, response.text
    assert "form" in response.json()["error"]["message"]


def test_the_body_limit_is_the_gateways_too(proxy_lab):
    huge = b"\0" * (33 << 20)
    response = httpx.post(
        proxy_lab.url("many") + PATH, files={"file": ("a.wav", huge)}, data={"model": "m"}, timeout=60
    )
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_a_hang_up_frees_the_slot(lab, app):
    request = httpx.Request(
        "POST", lab.url(app) + PATH, data={"model": "m"}, files={"file": ("a.wav", WAV + b"linger")}
    )
    body = request.read()
    lines = [f"POST {request.url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    with socket.create_connection(("127.0.0.1", lab.port)) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        wait_until(lambda: lab("load", name=app, deployment="m") == [1, 0], timeout=10)
    wait_until(lambda: lab("load", name=app, deployment="m") == [0, 0], timeout=5)


def test_by_handle(lab, app):
    text, tokens = lab("transcribe", name=app, deployment="m", audio="spoken" * 1000)
    assert text
    assert tokens == 5


def test_the_gateway_counts_it_by_its_path(proxy_lab):
    with client(proxy_lab, "many") as api:
        api.audio.transcriptions.create(model="m", file=("a.wav", WAV))
    assert f'endpoint="{PATH}"' in proxy_lab.get("many", "/metrics").text
