"""Answer ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion.requests import GenerateRequest
from trunnion_http.call import Call
from trunnion_http.conversation import Asked
from trunnion_http.generation import compose, gather, relay
from trunnion_http.names import client_names
from trunnion_http.tokenizing import count
from trunnion_http.wire import encode

from .body import decode_count, decode_messages
from .convert import read, sampling
from .frames import MessageFrames, error_event
from .response import message_json

if TYPE_CHECKING:
    from trunnion_http.app import App


async def messages(app: App, call: Call) -> None:
    """Decode, generate, answer: whole or as a stream."""
    body = decode_messages(await call.body(app.settings))
    handle, adapter = app.find(call, body.model)
    asked = read(body)
    public_id, request_id = app.ids(call, None)
    model = body.model or handle.name
    with client_names(asked.names):
        drawn = sampling(body)
        request = compose(
            call,
            asked.prompt,
            drawn,
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
        )
        message_id = call.named(f"msg_{public_id}")
        call.also = [*call.also, (b"request-id", call.request_id.encode())]
        call.watch(app.watch)
        events = handle.generate(request)
        if body.stream:
            call.error_frame = lambda error: error_event(error, call.request_id)
            frames = MessageFrames(message_id, model, max_tokens=body.max_tokens, stops=drawn.stop)
            await relay(call, events, frames)
        else:
            completion = await gather(call, events)
            made = message_json(completion, message_id, model, max_tokens=body.max_tokens, stops=drawn.stop)
            await call.answer(encode(made))


async def count_tokens(app: App, call: Call) -> None:
    """Answer with the tokens of the prompt, as the model's own chat template and tokenizer make them."""
    body = decode_count(await call.body(app.settings))
    handle, _ = app.find(call, body.model)
    asked = read(body)
    call.also = [*call.also, (b"request-id", call.request_id.encode())]
    call.watch(app.watch)
    with client_names(asked.names):
        tokens = await count(handle, _counted(asked))
    await call.answer(encode({"input_tokens": len(tokens)}))


def _counted(asked: Asked) -> GenerateRequest:
    return GenerateRequest(
        prompt=asked.prompt, request_id="", media=asked.media, tools=asked.tools, tool_choice=asked.tool_choice
    )
