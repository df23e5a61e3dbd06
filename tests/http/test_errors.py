"""Every failure comes in OpenAI's envelope, with its status, and says nothing of our insides."""

import json

import httpx
import openai
import pytest
from http_fakes import FakeModel, RunningServer

from trunnion import errors
from trunnion_http import HTTPSettings, create_app

TREE = sorted(n for n in errors.__all__ if n != "FIELDS")


def envelope(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", TREE)
def test_every_error_of_the_tree_before_the_first_event(web, add_model, name, stream):
    failure = getattr(errors, name)("it broke; mend it", param="seed", retry_after=1.2)
    model = add_model(refuse=failure)
    if name == "Cancelled":  # not by this client, which waits: the engine is being stopped
        failure = errors.Transient("it broke; mend it", param="seed", retry_after=1.2)
    body = {"model": model.name, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    response = web.post("/v1/chat/completions", json=body)
    error = envelope(response, failure.http_status)
    assert error["message"] == "it broke; mend it"
    assert error["param"] == "seed"
    assert error["code"] == ("model_not_found" if name == "AdapterNotFound" else failure.code)
    assert response.headers["retry-after"] == "2"
    assert response.headers["retry-after-ms"] == "1200"
    hint = response.headers.get("x-should-retry")
    assert hint == (None if failure.http_status < 408 else "true" if failure.retryable else "false")


@pytest.mark.parametrize("name", TREE)
def test_every_error_of_the_tree_mid_stream(web, add_model, name):
    failure = getattr(errors, name)("it broke", param="seed")
    model = add_model(die_after=(2, failure))
    if name == "Cancelled":
        failure = errors.Transient("it broke", param="seed")
    body = {"model": model.name, "messages": [{"role": "user", "content": "x"}], "stream": True}
    response = web.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    frames = response.text.split("\n\n")
    assert "[DONE]" not in response.text
    assert frames[-1] == ""
    assert [json.loads(f[6:])["choices"][0]["delta"]["content"] for f in frames[:2]] == ["Hel", "lo"]
    assert json.loads(frames[2].removeprefix("data: "))["error"]["message"] == "it broke"
    assert len(frames) == 4
    assert model.slots == 0


def test_the_clients_own_exceptions(client, add_model):
    ask = {"messages": [{"role": "user", "content": "x"}]}
    cases = [
        (errors.Overloaded("full", retry_after=3), openai.RateLimitError),
        (errors.ContextOverflow("too long"), openai.BadRequestError),
        (errors.InternalError("oh"), openai.InternalServerError),
    ]
    for failure, raised in cases:
        model = add_model(refuse=failure)
        with pytest.raises(raised) as caught:
            client.chat.completions.create(model=model.name, **ask)
        assert caught.value.code == failure.code
    model = add_model(die_after=(1, errors.EngineDead("the engine died")))
    with pytest.raises(openai.APIError, match="the engine died"):
        list(client.chat.completions.create(model=model.name, **ask, stream=True))
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", **ask)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unexpected_exception_shows_nothing(web, add_model, stream, caplog):
    model = add_model(refuse=ZeroDivisionError("secret /etc/path"))
    body = {"model": model.name, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    response = web.post("/v1/chat/completions", json=body)
    error = envelope(response, 500)
    assert error["code"] == "internal_error"
    assert "secret" not in response.text
    assert "secret" in caplog.text
    model = add_model(die_after=(1, ZeroDivisionError("secret")))
    response = web.post("/v1/chat/completions", json={**body, "model": model.name})
    assert "secret" not in response.text
    assert "error" in response.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["x", ["x", "y"]])
def test_a_stream_that_just_stops_is_not_taken_for_complete(web, add_model, stream, prompt):
    model = add_model(truncated=True)
    response = web.post("/v1/completions", json={"model": model.name, "prompt": prompt, "stream": stream})
    assert "[DONE]" not in response.text
    assert "cut short" in response.text


def test_one_of_several_prompts_fails_them_all(web, add_model):
    model = add_model(delay=0.01, die_after=(1, errors.EngineDead("dead")))
    response = web.post("/v1/completions", json={"model": model.name, "prompt": ["x", "y", "z"]})
    assert envelope(response, 503)["code"] == "engine_dead"
    assert model.wait_free()


BAD_CHAT = [
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 2**40}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_completion_tokens": 3, "max_tokens": 4}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"n": 0}, "n"),
    ({"n": 65}, "n"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"stop": [1]}, "stop[0]"),
    ({"stop": [""]}, "stop"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids[0]"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {"1": "x"}}, "logit_bias"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [1]}, "messages[0]"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "assistant"}, {"role": "boss"}]}, "messages[1].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant"}, {"role": "tool", "content": None}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].image_url.url",
    ),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"nope": 1}}, "stream_options.nope"),
    ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "grammar": "b"}}, "structured_outputs.grammar"),
    ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
    ({"guided_choice": []}, "guided_choice"),
    ({"tools": [{"type": "x"}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0]"),
    ({"tool_choice": "some"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ({"audio": {}}, "audio"),
    ({"functions": []}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"prediction": {}}, "prediction"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"moderation": {}}, "moderation"),
    ({"prompt_cache_options": {}}, "prompt_cache_options"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"verbosity": "low"}, "verbosity"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"temprature": 1}, "temprature"),
    ({"model": "nobody"}, "model"),
]


@pytest.mark.parametrize(("body", "param"), BAD_CHAT)
def test_bad_chat_fields_are_named(chat, model, body, param):
    response = chat(**body)
    error = envelope(response, 404 if param == "model" else 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert model.requests == []


def test_misspelt_fields_get_a_suggestion(chat):
    assert "did you mean 'temperature'" in chat(temprature=1).json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["a"] * 33, "n": 2}, "n"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": -1}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_bad_completion_fields_are_named(complete, model, body, param):
    assert envelope(complete(**body), 400)["param"] == param
    assert model.requests == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [], "temperature": NaN}',
        b'{"messages": [], "temperature": 1e999}',
        b'{"messages": [], "temperature": Infinity}',
        b'{"messages": []} {}',
        b'{"messages": ' + b"[" * 50_000,
        b'{"messages": [{"a": ' + b"[" * 50_000,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"a=b&c=d",
    ],
)
def test_broken_bodies(web, raw):
    assert envelope(web.post("/v1/chat/completions", content=raw), 400)["type"] == "invalid_request_error"


def test_missing_fields_are_named(web):
    assert envelope(web.post("/v1/chat/completions", json={}), 400)["param"] == "messages"
    assert envelope(web.post("/v1/completions", json={}), 400)["param"] == "prompt"
    assert envelope(web.post("/v1/embeddings", json={}), 400)["param"] == "input"


@pytest.mark.parametrize("size", [100_001, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies(running, size, chunked):
    """Within the limit's reach both ways of sending get the envelope; the connection may be cut on the way."""
    content = b" " * size
    data = (content[i : i + 50_000] for i in range(0, size, 50_000)) if chunked else content
    with httpx.Client(base_url=running.url) as web:
        assert envelope(web.post("/v1/completions", content=data), 413)["code"] == "request_too_large"


def test_body_within_the_limit_in_pieces(web, model):
    body = json.dumps({"model": model.name, "prompt": "x" * 50_000}).encode()
    pieces = (body[i : i + 1000] for i in range(0, len(body), 1000))
    assert web.post("/v1/completions", content=pieces).status_code == 200
    assert len(model.last.prompt.text) == 50_000


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("OPTIONS", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/base", "GET"),
        ("POST", "/health", "GET"),
    ],
)
def test_wrong_method(web, method, path, allowed):
    response = web.request(method, path)
    assert envelope(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/V1/models", "/v1/chat/completions/x"])
def test_unknown_path(web, path):
    assert envelope(web.post(path, json={}), 404)["code"] == "unknown_url"


@pytest.mark.parametrize("path", ["/v1/models/nobody", "/v1/models/"])
def test_unknown_model(web, path):
    response = web.get(path)
    if path.endswith("/"):
        assert response.json()["object"] == "list"
    else:
        assert envelope(response, 404)["code"] == "model_not_found"


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "embeddings"])
@pytest.mark.parametrize("name", ["nobody", "base:nobody", ":", ""])
def test_unknown_model_in_a_body(web, endpoint, name):
    prompt = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}[endpoint]
    value = [{"role": "user", "content": "x"}] if prompt == "messages" else "x"
    error = envelope(web.post(f"/v1/{endpoint}", json={"model": name, prompt: value}), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_embeddings_of_a_model_without(web, add_model):
    model = add_model(embeds=False)
    error = envelope(web.post("/v1/embeddings", json={"model": model.name, "input": "x"}), 400)
    assert error["code"] == "unsupported_feature"


def test_a_missing_model_is_the_only_one(add_model, web):
    body = {"messages": [{"role": "user", "content": "x"}]}
    add_model()
    assert envelope(web.post("/v1/chat/completions", json=body), 404)["param"] == "model"
    with RunningServer(create_app([FakeModel("only")])) as server:
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body).json()["model"] == "only"


def test_api_keys(monkeypatch):
    monkeypatch.setenv("MY_KEYS", "one, two")
    app = create_app([FakeModel("m")], HTTPSettings(api_keys_env="MY_KEYS"))
    with RunningServer(app) as server, httpx.Client(base_url=server.url) as web:
        for key in ("one", "two"):
            assert web.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
        for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}, {"authorization": "x"}):
            error = envelope(web.get("/v1/models", headers=headers), 401)
            assert error["code"] == "invalid_api_key"
            assert error["type"] == "authentication_error"
        assert envelope(web.post("/v1/completions", content=b"x"), 401)
        assert web.get("/health").status_code == 200
    monkeypatch.setenv("MY_KEYS", " ,")
    with pytest.raises(errors.ConfigError, match="MY_KEYS"):
        create_app([FakeModel("m")], HTTPSettings(api_keys_env="MY_KEYS"))
