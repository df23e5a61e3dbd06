"""What the Responses API refuses, by which name; what becomes of the items; images and disconnects."""

import base64

import pytest
from test_disconnects import post_raw

from trunnion import MediaPart, errors

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
DATA = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\npicture").decode()


@pytest.fixture
def send(web, model):
    """Post a body with what must be there filled in; return the response."""

    def post(**body):
        return web.post("/v1/responses", json={"model": model.name, "input": "Hi", **body})

    return post


def said(role, *parts):
    return {"role": role, "content": list(parts)}


def image(url, **more):
    return {"type": "input_image", "image_url": url, **more}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"inputs": "x"}, "inputs"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [said("user")]}, "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": 7}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [said("user", {"type": "input_file", "file_id": "x"})]}, "input[0].content[0].type"),
        ({"input": [said("user", {"type": "output_text", "text": "x"})]}, "input[0].content[0].type"),
        ({"input": [said("user", {"type": "input_text"})]}, "input[0].content[0].text"),
        ({"input": [said("user", {"type": "input_text", "text": "x", "y": 1})]}, "input[0].content[0].y"),
        ({"input": [said("user", {"type": "input_image"})]}, "input[0].content[0].image_url"),
        ({"input": [said("user", {"type": "input_image", "file_id": "f"})]}, "input[0].content[0].file_id"),
        ({"input": [said("user", image("file:///etc/passwd"))]}, "input[0].content[0].image_url"),
        ({"input": [{"role": "assistant", "content": "x", "phase": "commentary"}]}, "input[0].phase"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input[0].encrypted_content"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"text": {"format": {"type": "json_schema", "name": "r"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
    ],
)
def test_what_is_refused_is_named(send, model, body, param):
    response = send(**body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert param.rpartition(".")[2].partition("[")[0] in error["message"]
    assert error["type"] == "invalid_request_error"
    assert model.requests == []


def test_nothing_is_stored_and_that_is_said(send):
    error = send(previous_response_id="resp_1").json()["error"]
    assert error["code"] == "unsupported_feature"
    assert "send the whole conversation" in error["message"]
    assert send(store=False).status_code == 200


def test_every_parameter_of_the_client_is_known(send):
    """Accepted or refused with a reason: none is unknown, so none can be dropped by an oversight."""
    from openai.types.responses.response_create_params import ResponseCreateParamsBase

    for name in ResponseCreateParamsBase.__annotations__:
        if name not in ("input", "model"):
            assert send(**{name: None}).status_code == 200, name


def test_what_openai_accepts_is_accepted(send, model):
    accepted = {
        "service_tier": "auto",
        "safety_identifier": "s",
        "prompt_cache_key": "conversation",
        "truncation": "disabled",
        "background": False,
        "include": [],
        "tools": [],
    }
    body = send(**accepted).json()
    assert (body["prompt_cache_key"], body["safety_identifier"]) == ("conversation", "s")
    assert model.last.session == "conversation"


def test_items_become_messages(send, model):
    calls = [{"type": "function_call", "call_id": name, "name": "weather", "arguments": "{}"} for name in "ab"]
    thought = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "I must look."}]}
    answer = said("assistant", {"type": "output_text", "text": "Hm."})
    items = [
        {"role": "developer", "content": "Be kind."},
        said("user", {"type": "input_text", "text": "Weather?"}),
        thought,
        {"type": "message", "id": "m", "status": "completed", **answer},
        *calls,
        {"type": "function_call_output", "call_id": "a", "output": "rain"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "sun"}]},
        said("user", {"type": "input_text", "text": "a"}, image(DATA, detail="low")),
    ]
    assert send(input=items).status_code == 200
    made = [{"id": n, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for n in "ab"]
    assert model.last.prompt.messages == [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Hm.", "reasoning_content": "I must look.", "tool_calls": made},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "sun"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": DATA, "detail": "low"}},
            ],
        },
    ]
    picture = base64.b64decode(DATA.partition(",")[2])
    assert model.last.media == (MediaPart(type="image", data=picture, mime_type="image/png"),)


def test_what_the_pipeline_says_of_a_part_has_the_clients_place(web, add_model):
    param = "messages[1].content[0].image_url.url"
    model = add_model(refuse=errors.InvalidArgument(f"{param}: nothing is fetched", param=param))
    body = {"model": model.name, "instructions": "x", "input": [said("user", image("https://x.example/a"))]}
    error = web.post("/v1/responses", json=body).json()["error"]
    assert error["param"] == "input[0].content[0].image_url"
    assert error["message"] == "input[0].content[0].image_url: nothing is fetched"


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ("max_tokens", "max_output_tokens"),
        ("output_format.json_schema", "text.format.json_schema"),
        ("messages", "input"),
        ("messages[1]", "input"),
        ("tools", "tools"),
    ],
)
def test_what_the_core_calls_otherwise_has_the_clients_name(web, add_model, param, expected):
    model = add_model(refuse=errors.UnsupportedFeature(f"no {param} here", param=param))
    body = {"model": model.name, "instructions": "x", "input": "Hi"}
    error = web.post("/v1/responses", json=body).json()["error"]
    assert (error["param"], error["message"]) == (expected, f"no {expected} here")


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_frees_the_slot(running, add_model, stream):
    model = add_model(pieces=["x"] * 1000, delay=0.05)
    sock = post_raw(running.port, "/v1/responses", {"model": model.name, "input": "Hi", "stream": stream})
    assert model.wait_taken()
    sock.close()
    assert model.wait_free(2.0)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_a_stream_that_ends_too_early_is_a_failure(web, add_model, path):
    model = add_model(truncated=True)
    body = {"model": model.name, "stream": True, "input": "Hi"}
    if path == "/v1/messages":
        body = {"model": model.name, "stream": True, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    told = web.post(path, json=body).text
    assert "the answer may be cut short" in told
    assert "message_stop" not in told
    assert "response.completed" not in told
