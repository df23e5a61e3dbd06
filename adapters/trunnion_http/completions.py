"""Answer ``POST /v1/completions``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trunnion.errors import InvalidArgument
from trunnion.requests import Prompt, TextPrompt, TokensPrompt

from .call import Call
from .generation import build_request, check_choices, gather, relay
from .merge import merge
from .sse import CompletionFrames
from .wire import completion_response, completion_sampling, decode_completion, stream_options

if TYPE_CHECKING:
    from .app import App


async def completions(app: App, call: Call) -> None:
    """Decode, generate for every prompt, answer: whole or as a stream."""
    body = decode_completion(await call.body(app.settings))
    handle, adapter = app.find(call, body.model)
    prompts = parse_prompts(body.prompt, "prompt", special=body.add_special_tokens is not False)
    sampling = completion_sampling(body)
    check_choices(sampling.n * len(prompts), app.settings, "n")
    options = stream_options(body)
    public_id, request_id = app.ids(call, body.request_id)
    model = body.model or handle.name
    several = len(prompts) > 1
    requests = [
        build_request(
            call,
            body,
            prompt,
            sampling,
            model=model,
            adapter=adapter,
            settings=app.settings,
            request_id=f"{request_id}-{index}" if several else request_id,
        )
        for index, prompt in enumerate(prompts)
    ]
    response_id, created = call.named(f"cmpl-{public_id}"), int(time.time())
    call.watch(app.watch)
    if several:
        events = merge([handle.generate(request) for request in requests], sampling.n)
    else:
        events = handle.generate(requests[0])
    if body.stream:
        frames = CompletionFrames(response_id, created, model, include_usage=bool(options.include_usage))
        await relay(call, events, frames)
    else:
        await call.answer(completion_response(await gather(call, events), response_id, created, model))


def parse_prompts(value: str | list[str | int | list[int]], param: str, *, special: bool = True) -> list[Prompt]:
    """Return the prompts of a string, a list of strings, a list of token ids or a list of such lists.

    Raises:
        InvalidArgument: The list is empty or mixes kinds.
    """
    if isinstance(value, str):
        return [TextPrompt(text=value, add_special_tokens=special)]
    if not value:
        raise InvalidArgument(f"{param} must not be empty", param=param)
    if isinstance(value[0], int):
        return [_tokens(value, param)]
    prompts: list[Prompt] = []
    for index, item in enumerate(value):
        if isinstance(item, int) or type(item) is not type(value[0]):
            msg = f"{param}[{index}]: strings, token ids and lists of token ids cannot be mixed"
            raise InvalidArgument(msg, param=f"{param}[{index}]")
        if isinstance(item, str):
            prompts.append(TextPrompt(text=item, add_special_tokens=special))
        else:
            prompts.append(_tokens(item, f"{param}[{index}]"))
    return prompts


def _tokens(value: list[str | int | list[int]] | list[int], param: str) -> TokensPrompt:
    ids = [item for item in value if isinstance(item, int)]
    if len(ids) != len(value):
        raise InvalidArgument(f"{param}: strings, token ids and lists of token ids cannot be mixed", param=param)
    if not ids:
        raise InvalidArgument(f"{param} must not be empty", param=param)
    return TokensPrompt(token_ids=ids)
