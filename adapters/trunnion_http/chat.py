"""Answer ``POST /v1/chat/completions``."""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.requests import MessagesPrompt

from .call import Call
from .generation import build_request, check_choices, gather, relay
from .sse import ChatFrames
from .wire import (
    REFUSED,
    ChatBody,
    TokenizeBody,
    chat_response,
    chat_sampling,
    check_messages,
    check_tools,
    decode_chat,
    refuse_fields,
)
from .wire import stream_options as check_stream_options

if TYPE_CHECKING:
    from .app import App

_UNUSUAL: Final = (*REFUSED, "modalities", "verbosity")
_unusual_values = attrgetter(*_UNUSUAL)
_template_values = attrgetter(
    "continue_final_message", "add_generation_prompt", "chat_template", "chat_template_kwargs", "reasoning_effort"
)
_NO_TEMPLATE: Final = (None,) * 5
_NONE_SET: Final = (None,) * len(_UNUSUAL)


async def chat_completions(app: App, call: Call) -> None:
    """Decode, generate, answer: whole or as a stream."""
    body = decode_chat(await call.body(app.settings))
    handle, adapter = app.find(call, body.model)
    if _unusual_values(body) != _NONE_SET:
        _refuse(body)
    media = check_messages(body.messages)
    if body.tools or body.tool_choice is not None:
        check_tools(body.tools or (), body.tool_choice)
    sampling = chat_sampling(body)
    check_choices(sampling.n, app.settings, "n")
    options = check_stream_options(body)
    public_id, request_id = app.ids(call, body.request_id)
    model = body.model or handle.name
    request = build_request(
        call,
        body,
        chat_prompt(body, body.messages),
        sampling,
        model=model,
        adapter=adapter,
        settings=app.settings,
        request_id=request_id,
        media=media,
        chat=body,
    )
    response_id, created = call.named(f"chatcmpl-{public_id}"), int(time.time())
    call.watch(app.watch)
    if body.stream:
        frames = ChatFrames(response_id, created, model, include_usage=bool(options.include_usage))
        await relay(call, handle.generate(request), frames)
    else:
        completion = await gather(call, handle.generate(request))
        await call.answer(chat_response(completion, response_id, created, model))


def chat_prompt(body: ChatBody | TokenizeBody, messages: list[dict[str, Any]]) -> MessagesPrompt:
    """Return the conversation with what the body says of its chat template. Raises :class:`InvalidArgument`."""
    if _template_values(body) == _NO_TEMPLATE:
        return MessagesPrompt(messages=messages)  # type: ignore[arg-type]
    going_on = bool(body.continue_final_message)
    opening = not going_on if body.add_generation_prompt is None else body.add_generation_prompt
    if going_on and opening:
        msg = "continue_final_message and add_generation_prompt exclude each other; set one of them"
        raise InvalidArgument(msg, param="continue_final_message")
    options = body.chat_template_kwargs
    if body.reasoning_effort is not None:
        # Where a model knows efforts at all, its chat template reads them under this name.
        options = {"reasoning_effort": body.reasoning_effort, **(options or {})}
    return MessagesPrompt(
        messages=messages,  # type: ignore[arg-type]
        add_generation_prompt=opening,
        continue_final_message=going_on,
        chat_template=body.chat_template,
        chat_template_kwargs=options,
    )


def _refuse(body: ChatBody) -> None:
    refuse_fields(body, REFUSED)
    if body.modalities is not None and body.modalities != ["text"]:
        raise UnsupportedFeature("modalities other than text are not supported", param="modalities")
    if body.verbosity not in (None, "medium"):
        raise UnsupportedFeature("verbosity is not supported: ask for it in the prompt", param="verbosity")
