"""Every field a client may send arrives in the core's request."""

import base64
import gzip
import time

import pytest

from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, Regex

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_k": 3}, {"top_k": 3}),
        ({"min_p": 0.1}, {"min_p": 0.1}),
        ({"n": 2}, {"n": 2}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 9, "max_tokens": 9}, {"max_tokens": 9}),
        ({}, {"max_tokens": None}),
        ({"min_tokens": 2}, {"min_tokens": 2}),
        ({"stop": "a"}, {"stop": ("a",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": None}, {"stop": ()}),
        ({"stop_token_ids": [1, 2]}, {"stop_token_ids": (1, 2)}),
        ({"include_stop_str_in_output": True}, {"include_stop_str_in_output": True}),
        ({"ignore_eos": True}, {"ignore_eos": True}),
        ({"seed": -5}, {"seed": -5}),
        ({"presence_penalty": 1}, {"presence_penalty": 1.0}),
        ({"frequency_penalty": -1}, {"frequency_penalty": -1.0}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"logit_bias": {"5": -100, "6": 1.5}}, {"logit_bias": {5: -100.0, 6: 1.5}}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 5}, {"logprobs": 5}),
        ({"logprobs": False, "top_logprobs": 0}, {"logprobs": None}),
        ({"skip_special_tokens": False}, {"skip_special_tokens": False}),
    ],
)
def test_sampling(chat, model, body, expected):
    assert chat(**body).status_code == 200
    for name, value in expected.items():
        assert getattr(model.last.sampling, name) == value


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonObject()),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": SCHEMA}}},
            JsonSchema(schema=SCHEMA, name="r"),
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": {}, "strict": False}}},
            JsonSchema(schema={}, name="r", strict=False),
        ),
        ({"structured_outputs": {"json": SCHEMA}}, JsonSchema(schema=SCHEMA)),
        ({"structured_outputs": {"json": '{"type": "object"}'}}, JsonSchema(schema={"type": "object"})),
        ({"structured_outputs": {"regex": "a+"}}, Regex(pattern="a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Choice(choices=("a", "b"))),
        ({"structured_outputs": {"grammar": "root ::= x"}}, Grammar(grammar="root ::= x")),
        ({"structured_outputs": {"json_object": True}}, JsonObject()),
        ({"guided_json": SCHEMA}, JsonSchema(schema=SCHEMA)),
        ({"guided_regex": "a+"}, Regex(pattern="a+")),
        ({"guided_choice": ["a"]}, Choice(choices=("a",))),
        ({"guided_grammar": "g"}, Grammar(grammar="g")),
    ],
)
def test_output_formats(chat, complete, model, body, expected):
    for post in (chat, complete):
        assert post(**body).status_code == 200
        assert model.last.output_format == expected


def test_prompt_options(chat, model):
    chat(continue_final_message=True, chat_template="{{ x }}", chat_template_kwargs={"a": 1}, reasoning_effort="low")
    prompt = model.last.prompt
    assert prompt.continue_final_message
    assert not prompt.add_generation_prompt
    assert prompt.chat_template == "{{ x }}"
    assert prompt.chat_template_kwargs == {"reasoning_effort": "low", "a": 1}
    chat(add_generation_prompt=False)
    assert not model.last.prompt.add_generation_prompt
    chat()
    assert model.last.prompt.add_generation_prompt


def test_what_openai_accepts_is_accepted(chat, complete, model):
    accepted = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "safety_identifier": "s",
        "modalities": ["text"],
        "verbosity": "medium",
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": "none",
    }
    assert chat(**accepted).status_code == 200
    assert complete(user="u", best_of=1, echo=False, suffix=None).status_code == 200


FUNCTION = {"name": "f", "description": "d", "parameters": {}, "strict": True}


@pytest.mark.parametrize(
    ("body", "param", "hint"),
    [
        ({"tools": [{"type": "function", "function": FUNCTION, "functions": 1}]}, "tools[0].functions", "'function'"),
        ({"tools": [{"type": "function", "function": FUNCTION, "x": 1}]}, "tools[0].x", "remove it"),
        (
            {"tools": [{"type": "function", "function": FUNCTION | {"parameter": {}}}]},
            "tools[0].function.parameter",
            "'parameters'",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b", "tool_calls_id": "c"}]},
            "messages[1].tool_calls_id",
            "'tool_call",
        ),
        ({"messages": [{"role": "user", "content": "a", "nmae": "b"}]}, "messages[0].nmae", "'name'"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "argumnets": "{}"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.argumnets",
            "'arguments'",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"arguments": "{}"}}]}]},
            "messages[0].tool_calls[0]",
            "must be",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": "f"}]}, "messages[0].tool_calls", "a list"),
    ],
)
def test_misspelt_fields_inside_tools_and_messages_are_refused(chat, body, param, hint):
    answer = chat(**body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert hint in error["message"]


def test_a_message_keeps_the_fields_that_a_chat_template_may_read(chat, model):
    message = {"role": "assistant", "content": "a", "thinking": "b", "annotations": [], "reasoning_content": "c"}
    assert chat(messages=[message, {"role": "user", "content": "d", "name": "e"}]).status_code == 200
    assert model.last.prompt.messages[0]["thinking"] == "b"


def test_every_parameter_of_the_client_is_known(chat):
    """Accepted or refused with a reason: none is unknown, so none can be dropped by an oversight."""
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase

    for name in CompletionCreateParamsBase.__annotations__:
        if name not in ("messages", "model"):
            assert chat(**{name: None}).status_code == 200, name


def test_routing_hints(web, chat, model):
    chat(priority=3, cache_salt="salt", prompt_cache_key="conversation", extra={"fake": {"x": 1}})
    last = model.last
    assert (last.priority, last.cache_salt, last.session) == (3, "salt", "conversation")
    assert last.extra == {"fake": {"x": 1}}
    assert last.model == model.name
    assert last.deadline is None
    body = {"model": model.name, "messages": [{"role": "user", "content": "x"}]}
    headers = {"traceparent": "00-abc-def-01", "tracestate": "a=b", "x-session-id": "s1"}
    web.post("/v1/chat/completions", json=body, headers=headers)
    assert model.last.trace == {"traceparent": "00-abc-def-01", "tracestate": "a=b"}
    assert model.last.session == "s1"


def test_request_ids(web, model):
    body = {"model": model.name, "prompt": "x"}
    response = web.post("/v1/completions", json=body, headers={"X-Request-Id": "mine"})
    assert response.headers["x-request-id"] == "mine"
    assert response.json()["id"] == "cmpl-mine"
    web.post("/v1/completions", json=body, headers={"X-Request-Id": "mine"})
    assert len({r.request_id for r in model.requests}) == 2
    assert all(r.request_id.startswith("mine-") for r in model.requests)
    assert web.post("/v1/completions", json={**body, "request_id": "own"}).json()["id"] == "cmpl-own"
    fresh = web.post("/v1/completions", json=body)
    assert fresh.json()["id"] == "cmpl-" + fresh.headers["x-request-id"]
    for bad in (b"x" * 129, b"\xff", b"a\tb"):
        assert web.post("/v1/completions", json=body, headers={b"X-Request-Id": bad}).headers["x-request-id"] != bad


def test_media_parts_are_listed_in_order(chat, model):
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ]
    assert chat(messages=[{"role": "user", "content": parts}]).status_code == 200
    media = model.last.media
    assert [(m.type, m.url, m.data, m.mime_type) for m in media] == [
        ("image", "https://x/y.png", None, None),
        ("image", None, b"\x89PNG\r\n\x1a\n", "image/png"),
        ("audio", None, b"\x89PNG\r\n\x1a\n", "audio/wav"),
    ]
    assert model.last.prompt.messages[0]["content"] == parts


def test_completion_prompts_keep_special_tokens_unless_told(complete, model):
    complete()
    assert model.last.prompt.add_special_tokens
    complete(add_special_tokens=False)
    assert not model.last.prompt.add_special_tokens


def test_timeout_becomes_the_deadline():
    import httpx
    from http_fakes import FakeModel, RunningServer

    from trunnion_http import HTTPSettings, create_app

    model = FakeModel("m")
    with RunningServer(create_app([model], HTTPSettings(request_timeout=30))) as server:
        httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"})
    assert 25 < model.last.deadline - time.time() < 31


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (gzip.compress(b"{}", mtime=0), "is compressed"),
        ('{"model": "ä"}'.encode("latin-1"), "not UTF-8: byte 11 is 0xe4"),
        (b'{"model": ', "not valid JSON"),
    ],
)
def test_a_body_that_is_no_json_is_told_what_it_is(web, body, words):
    answer = web.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
