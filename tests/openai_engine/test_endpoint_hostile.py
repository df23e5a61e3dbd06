"""Whatever an endpoint does, a typed error or the whole answer comes of it."""

import asyncio
import json

import pytest
from endpoint_servers import (
    DONE,
    HELLO,
    STREAM_HEAD,
    USAGE,
    WHOLE,
    answer,
    ask,
    chunked,
    delta,
    http,
    scripted,
    sse,
    streamed,
)

from trunnion import Usage, collect
from trunnion.errors import (
    AdapterNotFound,
    AuthenticationFailed,
    Cancelled,
    ContextOverflow,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    ModelNotFound,
    NotFound,
    Overloaded,
    PermissionDenied,
    Transient,
    TrunnionError,
    UnsupportedFeature,
)


async def outcome(script, request=None, **config):
    """Return the completion, or the error."""
    async with scripted(script, **config) as (_, engine):
        try:
            return await collect(engine.generate(request or ask()))
        except TrunnionError as error:
            return error


def openai_error(message="why", **fields):
    return {"error": {"message": message, **fields}}


STATUSES = [
    (400, openai_error(), InvalidArgument, None, False),
    (400, openai_error("'top_k' is not allowed", param="top_k"), InvalidArgument, "top_k", False),
    (400, openai_error("Unrecognized request argument supplied: top_k"), UnsupportedFeature, "top_k", False),
    (400, openai_error("no", param="max_completion_tokens", code="unsupported_parameter"), UnsupportedFeature,
     "max_tokens", False),
    (400, openai_error("bad", param="response_format.json_schema"), InvalidArgument,
     "output_format.json_schema", False),
    (400, openai_error("too long", code="context_length_exceeded"), ContextOverflow, "messages", False),
    (400, openai_error("This model's maximum context length is 5 tokens"), ContextOverflow, "messages", False),
    (422, {"detail": "Extra inputs are not permitted: min_p"}, UnsupportedFeature, "min_p", False),
    (413, openai_error(), InvalidArgument, None, False),
    (401, openai_error(), AuthenticationFailed, None, False),
    (402, openai_error(), PermissionDenied, None, False),
    (403, openai_error(), PermissionDenied, None, False),
    (404, openai_error("The model `m` does not exist", code="model_not_found"), ModelNotFound, "model", False),
    (404, {"detail": "Not Found"}, NotFound, None, False),
    (405, b"", UnsupportedFeature, None, False),
    (408, openai_error(), Transient, None, True),
    (409, openai_error(), Transient, None, True),
    (429, openai_error(), Overloaded, None, True),
    (429, openai_error(code="insufficient_quota"), Overloaded, None, False),
    (499, openai_error(code="cancelled"), Cancelled, None, False),
    (500, openai_error(), InternalError, None, True),
    (501, openai_error(), UnsupportedFeature, None, False),
    (502, b"<html>Bad Gateway</html>", Transient, None, True),
    (503, openai_error(), Transient, None, True),
    (504, openai_error(), Transient, None, True),
    (504, openai_error(code="deadline_exceeded"), DeadlineExceeded, None, False),
    (301, b"", NotFound, None, False),
]  # fmt: skip


@pytest.mark.parametrize("final", [True, False], ids=["final", "delta"])
@pytest.mark.parametrize("case", STATUSES, ids=lambda case: f"{case[0]}-{case[2].__name__}")
async def test_a_status_becomes_its_error(case, final):
    status, body, kind, param, retryable = case
    error = await outcome(answer(status, body), ask(final=final))
    assert type(error) is kind
    assert (error.param, error.retryable) == (param, retryable)
    assert error.details["status"] == status
    assert str(status) in str(error)
    assert error.__cause__ is not None


@pytest.mark.parametrize("final", [True, False])
async def test_an_error_status_is_no_answer_whatever_its_body(final):
    for status in (500, 404, 302, 400):
        assert isinstance(await outcome(answer(status, WHOLE), ask(final=final)), TrunnionError)


async def test_a_missing_model_is_a_missing_adapter_where_one_was_asked_for():
    script = answer(404, openai_error("The model `a` does not exist"))
    assert type(await outcome(script, ask(adapter="a"))) is AdapterNotFound


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 7"], 7.0),
        (["Retry-After: 9", "Retry-After-Ms: 250"], 0.25),
        (["Retry-After: soon"], None),
        ([], None),
    ],
)
async def test_retry_after_is_told(headers, seconds):
    error = await outcome(answer(429, openai_error(), *headers))
    assert error.retry_after == seconds


async def test_retry_after_as_a_date():
    error = await outcome(answer(503, openai_error(), "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT"))
    assert error.retry_after > 1e9
    error = await outcome(answer(503, openai_error(), "Retry-After: Mon, 01 Jan 2001 00:00:00 GMT"))
    assert error.retry_after == 0.0


async def test_the_endpoints_own_word_on_repetitions_counts():
    assert (await outcome(answer(500, openai_error(), "x-should-retry: false"))).retryable is False
    assert (await outcome(answer(400, openai_error(), "x-should-retry: true"))).retryable is True


BODIES = {
    "html": (b"<html>Welcome</html>", "text/html"),
    "no json": (b"{oops", "application/json"),
    "another shape": (b'{"choices": "none"}', "application/json"),
    "a list": (b"[]", "application/json"),
    "no choices": (b"{}", "application/json"),
    "empty choices": (b'{"choices": []}', "application/json"),
    "no message": (b'{"choices": [{"index": 0, "finish_reason": "stop"}]}', "application/json"),
    "wrong utf-8": (b'{"choices": [{"message": {"content": "\xff\xfe"}}]}', "application/json"),
    "nothing": (b"", "application/json"),
    "an unknown end": (
        b'{"choices": [{"message": {"content": "x"}, "finish_reason": "tired"}]}',
        "application/json",
    ),
}


@pytest.mark.parametrize("final", [True, False], ids=["final", "delta"])
@pytest.mark.parametrize("name", BODIES)
async def test_a_wrong_body_is_an_error(name, final):
    body, kind = BODIES[name]
    error = await outcome(answer(200, body, kind=kind), ask(final=final))
    assert type(error) is InternalError
    assert "/v1" in str(error)


@pytest.mark.parametrize("final", [True, False], ids=["final", "delta"])
async def test_an_error_that_comes_with_a_200(final):
    error = await outcome(answer(200, openai_error("no", type="invalid_request_error", param="seed")), ask(final=final))
    assert type(error) is InvalidArgument
    assert error.param == "seed"
    assert type(await outcome(answer(200, openai_error("slow", code=429)), ask(final=final))) is Overloaded
    assert type(await outcome(answer(200, {"error": "broken"}), ask(final=final))) is InternalError


async def test_an_endpoint_that_knows_no_streams():
    completion = await outcome(answer(200, WHOLE))
    assert completion.text == "Hello"
    assert completion.usage == Usage(prompt_tokens=5, completion_tokens=2)


async def test_a_stream():
    completion = await outcome(streamed(*HELLO))
    assert completion.text == "Hello"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage == Usage(prompt_tokens=5, completion_tokens=2)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
async def test_a_stream_byte_by_byte_with_comments(line_end):
    whole = b": ping\n\n" + b": ping\n\n".join(HELLO)
    whole = whole.replace(b"\n", line_end)
    completion = await outcome(streamed(*(bytes([byte]) for byte in whole)))
    assert completion.text == "Hello"


async def test_a_stream_without_its_last_blank_line():
    assert (await outcome(streamed(*HELLO[:-1], b"data: [DONE]"))).text == "Hello"


CUT = {
    "nothing": [],
    "comments alone": [b": ping\n\n"],
    "before the end": HELLO[:2],
    "in an event": [*HELLO[:2], HELLO[2][:20]],
    "without [DONE]": HELLO[:-1],
    "without a finish reason": [*HELLO[:3], DONE],
    "without one of two finish reasons": [delta("a"), delta("b", index=1), delta(finish="stop"), DONE],
}


@pytest.mark.parametrize("name", CUT)
async def test_a_stream_that_is_cut_is_transient(name):
    request = ask(sampling={"n": 2}) if "two" in name else ask()
    for end in (True, False):
        error = await outcome(streamed(*CUT[name], end=end), request)
        assert type(error) is Transient, error
        assert error.retryable


async def test_what_came_before_the_cut_was_given():
    async with scripted(streamed(*HELLO[:3], end=False)) as (_, engine):
        events = engine.generate(ask())
        assert [(await anext(events)).choices[0].text for _ in range(2)] == ["Hel", "lo"]
        with pytest.raises(Transient):
            await anext(events)


@pytest.mark.parametrize(
    "event",
    [
        sse(openai_error("late", type="server_error", code=500)),
        b'event: error\ndata: {"message": "late", "code": 500}\n\n',
        b"event: error\ndata: late\n\n",
    ],
)
async def test_an_error_within_a_stream(event):
    error = await outcome(streamed(*HELLO[:2], event, *HELLO[2:]))
    assert type(error) is InternalError
    assert "late" in str(error)


@pytest.mark.parametrize("data", [b"oops", b'{"choices": 7}', b'{"choices": [{"delta": {"content": "\xff"}}]}'])
async def test_a_wrong_event_within_a_stream(data):
    error = await outcome(streamed(*HELLO[:2], sse(data)))
    assert type(error) is InternalError


async def test_an_event_without_end():
    error = await outcome(streamed(b"data: ", *[b"x" * 5000] * 10), max_event_bytes=20_000)
    assert type(error) is InternalError
    assert "max_event_bytes" in str(error)


async def test_a_long_line_is_fine():
    text = "x" * 300_000
    assert (await outcome(streamed(delta(text), *HELLO[3:]))).text == text


async def test_fewer_choices_than_asked_for():
    error = await outcome(streamed(*HELLO), ask(sampling={"n": 2}))
    assert type(error) is UnsupportedFeature
    assert error.param == "n"


async def test_a_content_length_that_is_wrong():
    data = json.dumps(WHOLE).encode()
    for told in (len(data) + 50, 0):

        async def script(_, writer, told=told):
            writer.write(http(200, data).replace(b"Content-Length: %d" % len(data), b"Content-Length: %d" % told))
            await writer.drain()
            writer.close()

        error = await outcome(script, ask(final=True))
        assert isinstance(error, (Transient, InternalError))


async def test_no_http_at_all():
    async def script(_, writer):
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()

    assert type(await outcome(script)) is Transient


async def test_a_server_that_hangs_up_at_once():
    async def script(_, writer):
        writer.close()

    assert type(await outcome(script)) is Transient


@pytest.mark.parametrize("final", [True, False])
async def test_a_server_that_hangs(final):
    async def script(_, writer):
        await asyncio.sleep(60)

    error = await outcome(script, ask(final=final), read_timeout=0.1)
    assert type(error) is Transient
    assert "read_timeout" in str(error)


async def test_slow_headers():
    async def script(_, writer):
        for byte in STREAM_HEAD:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        for piece in HELLO:
            writer.write(chunked(piece))
        writer.write(b"0\r\n\r\n")

    assert (await outcome(script)).text == "Hello"


async def test_a_stream_that_stalls():
    async def script(_, writer):
        writer.write(STREAM_HEAD + chunked(HELLO[1]))
        await asyncio.sleep(60)

    assert type(await outcome(script, read_timeout=0.1)) is Transient


@pytest.mark.parametrize("final", [True, False])
async def test_the_total_time(final):
    async def script(_, writer):
        writer.write(STREAM_HEAD)
        for _ in range(1000):
            writer.write(chunked(HELLO[1]))
            await asyncio.sleep(0.01)

    error = await outcome(script, ask(final=final), total_timeout=0.2)
    assert type(error) is DeadlineExceeded
    assert error.param == "total_timeout"


async def test_usage_that_nobody_reports_is_what_can_be_seen():
    completion = await outcome(streamed(*HELLO[:4], DONE))
    assert completion.usage == Usage(prompt_tokens=0, completion_tokens=0)


async def test_usage_in_full():
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    completion = await outcome(streamed(*HELLO[:4], USAGE, sse({"choices": [], "usage": usage}), DONE))
    assert completion.usage == Usage(prompt_tokens=9, completion_tokens=8, cached_tokens=4, reasoning_tokens=3)
