"""What Anthropic's routes refuse, by which name, in whose words; images, counting, keys and failures in mid-stream."""

import base64

import anthropic
import httpx
import pytest
from anthropic.types.shared import ErrorResponse
from http_fakes import FakeModel, RunningServer
from test_disconnects import post_raw

from trunnion import MediaPart, errors
from trunnion.completion import Completion
from trunnion.events import ChoiceDelta, GenerateEvent, ToolCallDelta, Usage
from trunnion_http import HTTPSettings, create_app
from trunnion_http.anthropic.frames import MessageFrames
from trunnion_http.anthropic.response import message_json
from trunnion_http.responses.response import output_items

HELLO = [{"role": "user", "content": "Hi"}]
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "a", "name": "weather", "input": {}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\npicture").decode()
TREE = sorted(name for name in errors.__all__ if name != "FIELDS")


@pytest.fixture
def send(web, model):
    """Post a message with what must be there filled in; return the response."""

    def post(path="/v1/messages", **body):
        return web.post(path, json={"model": model.name, "max_tokens": 9, "messages": HELLO, **body})

    return post


def envelope(response):
    """Return the error, having held the body to Anthropic's own type."""
    body = ErrorResponse.model_validate_json(response.content, strict=True)
    assert not body.model_extra
    assert not body.error.model_extra
    assert body.request_id == response.headers["request-id"] == response.headers["x-request-id"]
    return body.error


@pytest.mark.parametrize("name", TREE)
def test_every_error_of_the_tree(web, add_model, name):
    error = getattr(errors, name)("it went wrong")
    model = add_model(refuse=error)
    if name == "Cancelled":  # by the server, which is being stopped
        error = errors.Transient("it went wrong")
    response = web.post("/v1/messages", json={"model": model.name, "max_tokens": 9, "messages": HELLO})
    assert response.status_code == error.http_status
    expected = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        500: "api_error",
        503: "overloaded_error",
        504: "timeout_error",
    }[error.http_status]
    assert (envelope(response).type, envelope(response).message) == (expected, "it went wrong")
    assert response.headers.get("x-should-retry", "false") == str(error.retryable).lower()


def test_the_client_raises_its_own_errors(running, model):
    with anthropic.Anthropic(base_url=running.url, api_key="none", max_retries=0, timeout=20) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.messages.create(model="no-such", max_tokens=9, messages=HELLO)
        assert caught.value.request_id
        with pytest.raises(anthropic.BadRequestError, match="max_tokens must be 1 or more"):
            client.messages.create(model=model.name, max_tokens=0, messages=HELLO)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_in_mid_stream(running, add_model, stream):
    model = add_model(die_after=(2, errors.EngineDead("the engine is gone")))
    with anthropic.Anthropic(base_url=running.url, api_key="none", max_retries=0, timeout=20) as client:
        ask = {"model": model.name, "max_tokens": 9, "messages": HELLO, "stream": stream}
        with pytest.raises(anthropic.APIStatusError, match="the engine is gone") as caught:
            list(client.messages.create(**ask))
    ErrorResponse.model_validate(caught.value.body, strict=True)
    assert caught.value.body["error"]["type"] == "overloaded_error"
    assert model.slots == 0


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_token": 1}, "max_token"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [*HELLO, {"role": "user", "content": [{"type": "text"}]}]}, "messages[1].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}]}]}, "[0].content[0].x"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "document"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": ""}]}]}, "thinking"),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": ""}]}]}, "redacted"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}
                ]
            },
            "messages[0]",
        ),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL | {"allowed_callers": ["code"]}]}, "tools[0].allowed_callers"),
        ({"tools": [TOOL | {"input_examples": []}]}, "tools[0].input_examples"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto", "name": "x"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
        ({"system": [{"type": "text", "text": "x", "citations": [{}]}]}, "system[0].citations"),
        ({"speed": "fast"}, "speed"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"context_management": {}}, "context_management"),
        ({"diagnostics": {}}, "diagnostics"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"user_profile_id": "u"}, "user_profile_id"),
        ({"workspace_id": "w"}, "workspace_id"),
    ],
)
def test_what_is_refused_is_named(send, model, body, named):
    response = send(**body)
    assert response.status_code == 400
    error = envelope(response)
    assert error.type == "invalid_request_error"
    assert named in error.message
    assert model.requests == []


def test_every_parameter_of_the_client_is_known(send):
    """Accepted or refused with a reason: none is unknown, so none can be dropped by an oversight."""
    from anthropic.types.message_create_params import MessageCreateParamsBase

    for name in MessageCreateParamsBase.__annotations__:
        if name not in ("messages", "model", "max_tokens"):
            assert send(**{name: None}).status_code == 200, name


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/messages", 405), ("POST", "/v1/messages/x", 404)])
def test_errors_before_the_handler_have_the_envelope_too(web, method, path, status):
    response = web.request(method, path)
    assert response.status_code == status
    envelope(response)


def test_other_paths_keep_openais_envelope(web, model):
    assert "param" in web.post("/v1/chat/completions", json={"model": model.name}).json()["error"]


def test_a_body_that_is_too_large(send):
    response = send(system="x" * 200_000)
    assert response.status_code == 413
    envelope(response)


def image(source):
    return [{"role": "user", "content": [{"type": "text", "text": "See:"}, {"type": "image", "source": source}]}]


def test_images_are_the_chats(send, model):
    sent = send(messages=image({"type": "base64", "media_type": "image/jpeg", "data": PNG}), system="You see.")
    assert sent.status_code == 200
    part = MediaPart(type="image", data=base64.b64decode(PNG), mime_type="image/png")
    assert model.last.media == (part,)
    held = model.last.prompt.messages[1]["content"]
    assert held[1] == {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG}"}}
    send(messages=image({"type": "url", "url": "https://images.example/a.png"}))
    assert model.last.media == (MediaPart(type="image", url="https://images.example/a.png"),)


def test_images_in_results(send, model):
    shown = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [shown, {"type": "text", "text": "done"}]}
    assert send(messages=[{"role": "user", "content": [result]}]).status_code == 200
    assert [part["type"] for part in model.last.prompt.messages[0]["content"]] == ["image_url", "text"]
    assert len(model.last.media) == 1


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"type": "base64", "media_type": "image/png", "data": "@@"}, "messages[0].content[1].source.data"),
        ({"type": "base64", "media_type": "image/png", "data": "aGk="}, "messages[0].content[1].source.data"),
        ({"type": "url", "url": "file:///etc/passwd"}, "messages[0].content[1].source.url"),
        ({"type": "file", "file_id": "f"}, "messages[0].content[1].source"),
    ],
)
def test_a_wrong_image_is_refused_by_its_place(send, model, source, named):
    response = send(messages=image(source))
    assert response.status_code == 400
    assert named in envelope(response).message
    assert model.requests == []


def test_what_the_pipeline_says_of_a_part_has_the_clients_place(send, web, add_model):
    """The system prompt is a message to the core, so its numbers are others."""
    param = "messages[1].content[1].image_url.url"
    model = add_model(refuse=errors.InvalidArgument(f"{param}: nothing is fetched", param=param))
    ask = {"model": model.name, "max_tokens": 9, "system": "You see."}
    response = web.post("/v1/messages", json=ask | {"messages": image({"type": "url", "url": "https://x.example/a"})})
    assert envelope(response).message == "messages[0].content[1].source.url: nothing is fetched"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "wrong"}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic right"}, 401),
        ({"x-api-key": "right"}, 200),
        ({"authorization": "Bearer right"}, 200),
        ({"authorization": "Bearer wrong", "x-api-key": "right"}, 200),
    ],
)
def test_keys(monkeypatch, headers, status):
    monkeypatch.setenv("TEST_KEYS", "right,other")
    model = FakeModel("m")
    body = {"model": "m", "max_tokens": 9, "messages": HELLO}
    with RunningServer(create_app([model], HTTPSettings(api_keys_env="TEST_KEYS"))) as server:
        response = httpx.post(f"{server.url}/v1/messages", json=body, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert envelope(response).type == "authentication_error"


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_frees_the_slot(running, add_model, stream):
    model = add_model(pieces=["x"] * 1000, delay=0.05)
    body = {"model": model.name, "max_tokens": 9, "messages": HELLO, "stream": stream}
    sock = post_raw(running.port, "/v1/messages", body)
    assert model.wait_taken()
    sock.close()
    assert model.wait_free(2.0)


def test_mixed_tool_calls_are_told_in_turn():
    def event(*calls, **more):
        return GenerateEvent(choices=(ChoiceDelta(tool_calls=calls),), **more)

    frames = MessageFrames("msg_1", "m", max_tokens=9, stops=())
    first, second = ToolCallDelta(index=0, id="a", name="f"), ToolCallDelta(index=1, id="b", name="g")
    out = frames.feed(event(first, second))
    out += frames.feed(event(ToolCallDelta(index=1, arguments='{"y":')))
    out += frames.feed(event(ToolCallDelta(index=0, arguments='{"x":')))
    out += frames.feed(event(ToolCallDelta(index=1, arguments=" 2}")))
    assert b'"name":"g"' not in out
    out += frames.feed(event(ToolCallDelta(index=0, arguments=" 1}")))
    assert b'"name":"g"' in out
    out += frames.feed(event(ToolCallDelta(index=0, arguments="  ")))
    last = event(usage=Usage(prompt_tokens=1, completion_tokens=2))
    out += frames.feed(last) + frames.end(last)
    pieces = [line for line in out.decode().splitlines() if "partial_json" in line or "_stop" in line]
    told = [piece.partition("partial_json")[2] or piece for piece in pieces if not piece.startswith("event")]
    assert told[:2] == ['":"{\\"x\\":"}}', '":" 1}"}}']
    assert told[3:5] == ['":"{\\"y\\":"}}', '":" 2}"}}']
    with pytest.raises(errors.InternalError, match="tool call 0"):
        frames.feed(event(ToolCallDelta(index=0, arguments="more")))


def test_calls_without_whole_arguments_are_told_at_the_end():
    frames = MessageFrames("msg_1", "m", max_tokens=9, stops=())
    calls = (ToolCallDelta(index=0, id="a", name="f"), ToolCallDelta(index=1, id="b", name="g", arguments="{}"))
    last = GenerateEvent(choices=(ChoiceDelta(tool_calls=calls),), usage=Usage(prompt_tokens=1, completion_tokens=2))
    out = frames.feed(last)
    assert b'"name":"g"' not in out
    assert b'"name":"g"' in frames.end(last)


@pytest.mark.parametrize("arguments", ["{", "[]"])
def test_a_call_with_broken_arguments_is_the_models_fault(web, add_model, arguments):
    ask = {"max_tokens": 9, "messages": HELLO, "tools": [TOOL]}
    model = add_model(tool_call=("weather", [arguments]))
    response = web.post("/v1/messages", json={"model": model.name, **ask})
    assert response.status_code == 500
    assert "weather" in envelope(response).message


def test_counting_needs_a_tokenizer(web, model):
    response = web.post("/v1/messages/count_tokens", json={"model": model.name, "messages": HELLO})
    assert response.status_code == 400
    assert "no tokenizer" in envelope(response).message


def test_counting_takes_no_limit(web, model):
    body = {"model": model.name, "messages": HELLO, "max_tokens": 9}
    response = web.post("/v1/messages/count_tokens", json=body)
    assert response.status_code == 400
    assert "max_tokens" in envelope(response).message


def test_text_behind_calls_is_a_block_of_its_own():
    def event(**delta):
        return GenerateEvent(choices=(ChoiceDelta(**delta),))

    frames = MessageFrames("msg_1", "m", max_tokens=9, stops=())
    call = ToolCallDelta(index=0, id="a", name="f", arguments='{"x":')
    other = ToolCallDelta(index=1, id="b", name="g", arguments="{}")
    out = frames.feed(event(text="one"))
    out += frames.feed(event(tool_calls=(call, other)))
    out += frames.feed(event(text="two"))
    last = GenerateEvent(usage=Usage(prompt_tokens=1, completion_tokens=2))
    out += frames.feed(last) + frames.end(last)
    starts = [line for line in out.decode().splitlines() if '"content_block":' in line]
    assert [line.partition('"type":"')[2] for line in (start.partition('"content_block":')[2] for start in starts)] == [
        'text","text":"","citations":null}}',
        'tool_use","id":"a","name":"f","input":{}}}',
        'tool_use","id":"b","name":"g","input":{}}}',
        'text","text":"","citations":null}}',
    ]


def test_an_answer_without_choices_is_empty():
    usage = Usage(prompt_tokens=1, completion_tokens=0)
    made = message_json(Completion(usage=usage), "msg_1", "m", max_tokens=9, stops=())
    assert (made["content"], made["stop_reason"]) == ([], "end_turn")
    assert output_items(Completion(usage=usage), "resp_1")[0]["content"][0]["text"] == ""
