"""Answer ``POST /v1/responses``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trunnion_http.call import Call
from trunnion_http.generation import compose, gather, relay
from trunnion_http.names import client_names
from trunnion_http.wire import encode

from .body import decode_responses
from .convert import read, sampling
from .frames import ResponseFrames
from .response import Envelope, output_items

if TYPE_CHECKING:
    from trunnion_http.app import App


async def responses(app: App, call: Call) -> None:
    """Decode, generate, answer: whole or as a stream. Nothing is kept."""
    body = decode_responses(await call.body(app.settings))
    handle, adapter = app.find(call, body.model)
    asked = read(body)
    public_id, request_id = app.ids(call, None)
    model = body.model or handle.name
    with client_names(asked.names):
        request = compose(
            call,
            asked.prompt,
            sampling(body),
            model=model,
            adapter=adapter,
            settings=app.settings,
            request_id=request_id,
            stream=bool(body.stream),
            media=asked.media,
            tools=asked.tools,
            tool_choice=asked.tool_choice,
            parallel_tool_calls=asked.parallel_tool_calls,
            output_format=asked.output_format,
            session=body.prompt_cache_key,
        )
        envelope = Envelope(call.named(f"resp_{public_id}"), int(time.time()), model, body)
        call.watch(app.watch)
        events = handle.generate(request)
        if body.stream:
            frames = ResponseFrames(envelope)
            call.error_frame = frames.failed
            await relay(call, events, frames)
        else:
            completion = await gather(call, events)
            assert completion.usage is not None, "collect() raises without one"
            output = output_items(completion, envelope.id)
            finish = completion.choices[0].finish_reason if completion.choices else None
            made = envelope.done(output, finish, completion.usage)
            await call.answer(encode(made))
