"""The same API over every topology: a replica behind Serve's proxy or HAProxy, and a gateway behind either."""

import json
import socket
import time

import anthropic
import openai
import pytest

from .conftest import chat, wait_until

pytestmark = pytest.mark.ray


@pytest.fixture(params=["one", "many"])
def app(request):
    return request.param


def client(lab, app):
    return openai.OpenAI(base_url=lab.url(app) + "/v1", api_key="unused", max_retries=0)


def test_the_topology_is_told_with_its_reason(lab, app):
    body = lab.get(app, "/ready").json()
    assert body["status"] == "ready"
    assert body["topology"] == ("gateway" if app == "many" else lab.topology)
    assert ("HAProxy sends" in body["topology_reason"]) == (lab.topology == "direct")
    assert lab.offers == lab.topology


def test_whole_and_streamed_answers_are_the_same(lab, app):
    with client(lab, app) as api:
        whole = api.chat.completions.create(**chat())
        pieces = list(api.chat.completions.create(**chat(stream=True, stream_options={"include_usage": True})))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece.choices]) >= 3
    assert pieces[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 4


def test_adapters_are_models(lab, app):
    with client(lab, app) as api:
        plain = api.chat.completions.create(**chat())
        loud = api.chat.completions.create(**chat(model="loud"))
        names = [model.id for model in api.models.list()]
    assert loud.choices[0].message.content.isupper()
    assert not plain.choices[0].message.content.isupper()
    assert names[:2] == ["m", "loud"]


def test_several_models_answer_for_themselves(lab):
    with client(lab, "many") as api:
        first = api.chat.completions.create(**chat())
        second = api.chat.completions.create(**chat(model="other/model-1.5"))
        names = [model.id for model in api.models.list()]
    assert first.choices[0].message.content != second.choices[0].message.content
    assert second.model == "other/model-1.5"
    assert names == ["m", "loud", "other/model-1.5"]


def test_completions_pass_too(lab, app):
    answer = lab.post(app, {"model": "m", "prompt": "once upon", "max_tokens": 3}, path="/v1/completions")
    assert answer.json()["usage"]["completion_tokens"] == 3


def test_the_other_apis_pass_too(lab, app):
    ask = {"model": "m", "max_tokens": 4, "messages": chat()["messages"]}
    with anthropic.Anthropic(base_url=lab.url(app), api_key="unused", max_retries=0) as claude:
        whole = claude.messages.create(**ask)
        with claude.messages.stream(**ask) as stream:
            assert stream.get_final_text() == whole.content[0].text
        assert whole.usage.output_tokens == 4
        with pytest.raises(anthropic.NotFoundError, match="absent") as caught:
            claude.messages.create(**ask | {"model": "absent"})
        assert caught.value.body["error"]["type"] == "not_found_error"
    with client(lab, app) as api:
        events = list(api.responses.create(model="m", input="hello there", max_output_tokens=4, stream=True))
        assert events[-1].type == "response.incomplete"
        assert events[-1].response.output_text == whole.content[0].text
    for path, body in (("/tokenize", {"prompt": "x"}), ("/v1/messages/count_tokens", {"messages": ask["messages"]})):
        answer = lab.post(app, {"model": "m", **body}, path=path)
        assert (answer.status_code, "tokenizer" in answer.text) == (400, True)
    assert "/v1/messages" in lab.get(app, "/openapi.json").json()["paths"]


def test_scores_rankings_and_labels_pass_too(lab, app):
    ranked = lab.post(app, {"model": "m", "query": "the cat", "documents": ["a dog", "the cat"]}, path="/v1/rerank")
    assert [one["index"] for one in ranked.json()["results"]] == [1, 0]
    scored = lab.post(app, {"model": "m", "text_1": "the cat", "text_2": "the cat"}, path="/v1/score")
    assert scored.json()["data"][0]["score"] == pytest.approx(1.0)
    labelled = lab.post(app, {"model": "m", "input": "a positive day"}, path="/classify")
    assert labelled.json()["data"][0]["label"] == "positive"
    refused = lab.post(app, {"model": "loud", "input": "x"}, path="/v1/classify").json()["error"]
    assert (refused["code"], refused["param"]) == ("unsupported_feature", "model")


def test_scores_and_labels_by_handle(lab, app):
    scores, labels = lab("judge", name=app, deployment="m")
    assert scores[0] == pytest.approx(1.0)
    assert labels == ["negative"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (chat(model="absent"), (404, "model_not_found", "model")),
        (chat(max_tokens="many"), (400, "invalid_argument", "max_tokens")),
        (chat(temperature=-1), (400, "invalid_argument", "temperature")),
        (chat(verbosity="low"), (400, "unsupported_feature", "verbosity")),
        (chat(max_tokens=10**6), (400, "context_length_exceeded", "messages")),
    ],
)
def test_errors_keep_openais_envelope(lab, app, body, expected):
    answer = lab.post(app, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == expected
    assert error["type"] == "invalid_request_error"


def test_what_is_not_json_is_refused(lab, app):
    answer = lab.post(app, None, path="/v1/chat/completions", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert lab.get(app, "/v1/nothing").json()["error"]["code"] == "unknown_url"


def test_the_request_id_comes_back_once(lab, app):
    answer = lab.post(app, chat(), headers={"x-request-id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    assert answer.json()["id"] == "chatcmpl-mine-1"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("after", [0.0, 0.5], ids=["at once", "later"])
def test_a_hang_up_frees_the_slot(lab, app, stream, after):
    # The stream would take 40 s, the whole answer for ever.
    body = json.dumps(chat(max_tokens=2000, stream=True) if stream else chat("linger")).encode()
    head = f"POST /{app}/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", lab.port)) as connection:
        connection.sendall(head + body)
        if stream:
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        wait_until(lambda: lab("load", name=app, deployment="m") == [1, 0], timeout=10)
        time.sleep(after)
    wait_until(lambda: lab("load", name=app, deployment="m") == [0, 0], timeout=5)


def test_python_callers_have_a_handle(lab, app):
    pieces = lab("generate", name=app, deployment="m", text="hello", max_tokens=5)
    assert len(pieces) == 5
    error = lab("embed_error", name=app, deployment="m")
    assert (error["type"], error["http_status"], error["param"]) == ("UnsupportedFeature", 400, "model")


def test_a_running_serve_is_taken_as_it_is(lab):
    offered, warnings = lab("ensure", topology="auto")
    assert offered == lab.topology
    assert len(warnings) == (lab.topology == "proxy")
    what, said = lab("ensure", topology="direct")
    if lab.topology == "proxy":
        assert (what, len(said)) == ("topology", 1)
        assert "cannot be had" in said[0]
    else:
        assert (what, said) == ("direct", [])
