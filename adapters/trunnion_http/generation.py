"""Run generations: pick the model, make the request, and relay its events to the socket."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from time import perf_counter
from typing import Any, Final

from trunnion.completion import Completion, collect
from trunnion.errors import InternalError, InvalidArgument
from trunnion.events import GenerateEvent, Usage
from trunnion.formats import OutputFormat
from trunnion.requests import GenerateRequest, MediaPart, Prompt, SamplingParams

from .account import StreamFrames
from .call import Call
from .metrics import Meter
from .settings import HTTPSettings
from .wire import ChatBody, GenerationBody, output_format

_TRACE: Final = ((b"traceparent", "traceparent"), (b"tracestate", "tracestate"))
_TIMEOUT: Final = b"x-request-timeout"
_BODY: Final = "http.response.body"


def build_request(
    call: Call,
    body: GenerationBody,
    prompt: Prompt,
    sampling: SamplingParams,
    *,
    model: str,
    adapter: str | None,
    settings: HTTPSettings,
    request_id: str,
    media: tuple[MediaPart, ...] = (),
    chat: ChatBody | None = None,
) -> GenerateRequest:
    """Return the core request of a body."""
    return compose(
        call,
        prompt,
        sampling,
        model=model,
        adapter=adapter,
        settings=settings,
        request_id=request_id,
        stream=bool(body.stream),
        media=media,
        tools=() if chat is None or not chat.tools else tuple(chat.tools),
        tool_choice=None if chat is None else chat.tool_choice,
        parallel_tool_calls=None if chat is None else chat.parallel_tool_calls,
        output_format=output_format(body),
        session=None if chat is None else chat.prompt_cache_key,
        priority=body.priority,
        cache_salt=body.cache_salt,
        extra=body.extra,
    )


def compose(
    call: Call,
    prompt: Prompt,
    sampling: SamplingParams,
    *,
    model: str,
    adapter: str | None,
    settings: HTTPSettings,
    request_id: str,
    stream: bool,
    media: tuple[MediaPart, ...] = (),
    tools: tuple[Mapping[str, Any], ...] = (),
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
    output_format: OutputFormat | None = None,
    session: str | None = None,
    priority: int | None = None,
    cache_salt: str | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> GenerateRequest:
    """Return the core request of what a body says and of what stands beside it: trace, session and time limit."""
    headers = call.headers
    trace = None
    account = call.account
    if account is not None and account.carrier is not None:
        trace = account.carrier
    elif b"traceparent" in headers:
        trace = {key: headers[name].decode("latin-1") for name, key in _TRACE if name in headers}
    if session is None and b"x-session-id" in headers:
        session = headers[b"x-session-id"].decode("latin-1")
    timeout = time_limit(call, settings)
    request = GenerateRequest(
        prompt=prompt,
        request_id=request_id,
        sampling=sampling,
        media=media,
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=parallel_tool_calls,
        output_format=output_format,
        delivery="delta" if stream else "final",
        model=model,
        adapter=adapter,
        priority=call.priority if priority is None else priority,
        deadline=None if timeout is None else time.time() + timeout,
        session=session,
        tenant=call.tenant,
        cache_salt=cache_salt,
        trace=trace,
        extra=extra,
    )
    if account is not None:
        account.request = request
    return request


def time_limit(call: Call, settings: HTTPSettings) -> float | None:
    """Return the seconds that a request may take; None for no limit. Raises :class:`InvalidArgument`."""
    limit = settings.request_timeout if call.inside is None else None  # a batch has its own time
    asked = call.headers.get(_TIMEOUT)
    return limit if asked is None else _shorter(asked, limit)


def _shorter(value: bytes, limit: float | None) -> float:
    """Return the seconds that a client gives its request, at most the limit. Raises :class:`InvalidArgument`."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        msg = f"X-Request-Timeout must be a positive number of seconds, not {value.decode('latin-1')[:40]!r}"
        raise InvalidArgument(msg, param="X-Request-Timeout")
    return seconds if limit is None else min(seconds, limit)


def check_choices(choices: int, settings: HTTPSettings, param: str) -> None:
    """Refuse a request that asks for more choices than allowed. Raises :class:`InvalidArgument`."""
    if choices > settings.max_choices:
        msg = f"{param}: {choices} choices in one request, at most {settings.max_choices}; send several requests"
        raise InvalidArgument(msg, param=param)


async def gather(call: Call, events: AsyncGenerator[GenerateEvent, None]) -> Completion:
    """Return everything a request produced."""
    completion = await collect(events)
    call.usage = completion.usage
    if call.account is not None:
        for choice in completion.choices:
            call.account.ended(choice.index, choice.finish_reason)
    return completion


async def relay(call: Call, events: AsyncGenerator[GenerateEvent, None], frames: StreamFrames) -> None:
    """Stream the events, one send for each.

    The response begins with the first event, so that a refusal still has its status. The last event waits for the
    generator's end: what a failing engine sent is never marked as complete.

    Raises:
        InternalError: The stream ended without its terminal event.
    """
    send = call.send
    last: GenerateEvent | None = None
    held = b""
    meter = None if call.figures is None else Meter(call.figures, call.began)
    if call.account is not None:
        frames = call.account.watching(frames)
    try:
        async with aclosing(events):
            async for event in events:
                came = perf_counter() if meter is not None else 0.0
                frame = held + frames.feed(event) if held else frames.feed(event)
                if event.usage is not None:
                    held, last = frame, event
                elif frame:
                    held = b""
                    if not call.started:
                        await call.begin_stream()
                    await send({"type": _BODY, "body": frame, "more_body": True})
                if meter is not None:
                    meter.sent(came, event)
    finally:
        if meter is not None:
            meter.close()
            if last is None and meter.tokens:  # the client left, or the engine failed: what was sent was used
                call.usage = Usage(prompt_tokens=meter.prompt, completion_tokens=meter.tokens)
    if last is None:
        raise InternalError("the engine's stream ended without its terminal event; the answer may be cut short")
    if not call.started:
        await call.begin_stream()
    call.usage = last.usage
    await call.end_stream(held + frames.end(last))
