"""Answer ``POST /tokenize`` and ``POST /detokenize``, as vLLM's server does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.requests import GenerateRequest, TextPrompt

from .call import Call
from .chat import chat_prompt
from .models import ModelHandle
from .tokenizer import Tokenizes
from .wire import (
    DetokenizeBody,
    TokenizeBody,
    check_messages,
    check_tools,
    decode_detokenize,
    decode_tokenize,
    encode,
)

if TYPE_CHECKING:
    from .app import App


async def tokenize(app: App, call: Call) -> None:
    """Decode, tokenize, answer with ids and their number."""
    body: TokenizeBody = decode_tokenize(await call.body(app.settings))
    handle, _ = app.find(call, body.model)
    request = _request(body)
    call.watch(app.watch)
    ids = list(await count(handle, request))
    info = handle.info
    length = None if info is None else info.context_length
    await call.answer(encode({"count": len(ids), "max_model_len": length, "tokens": ids, "token_strs": None}))


async def detokenize(app: App, call: Call) -> None:
    """Decode, make the text, answer."""
    body: DetokenizeBody = decode_detokenize(await call.body(app.settings))
    handle, _ = app.find(call, body.model)
    call.watch(app.watch)
    text = await _tokenizer(handle).detokenize(body.tokens)
    await call.answer(encode({"prompt": text}))


async def count(handle: ModelHandle, request: GenerateRequest) -> Sequence[int]:
    """Return the token ids of a request's prompt. Raises :class:`UnsupportedFeature` where none can be made."""
    return await _tokenizer(handle).tokenize(request)


def _tokenizer(handle: ModelHandle) -> Tokenizes:
    if not isinstance(handle, Tokenizes):
        raise UnsupportedFeature(f"the model {handle.name!r} has no tokenizer here", param="model")
    return handle


def _request(body: TokenizeBody) -> GenerateRequest:
    if body.return_token_strs:
        msg = "return_token_strs is not supported; send single tokens to /detokenize"
        raise UnsupportedFeature(msg, param="return_token_strs")
    if (body.prompt is None) == (body.messages is None):
        raise InvalidArgument("send a prompt or messages, one of them", param="prompt")
    if body.messages is None:
        assert body.prompt is not None
        for name in ("tools", "chat_template", "chat_template_kwargs", "reasoning_effort", "continue_final_message"):
            if getattr(body, name):
                raise InvalidArgument(f"{name} goes with messages, not with prompt", param=name)
        prompt = TextPrompt(text=body.prompt, add_special_tokens=body.add_special_tokens is not False)
        return GenerateRequest(prompt=prompt, request_id="")
    if body.add_special_tokens:
        msg = "add_special_tokens is not supported with messages: the chat template writes them; leave it out"
        raise UnsupportedFeature(msg, param="add_special_tokens")
    media = check_messages(body.messages)
    check_tools(body.tools or (), None)
    return GenerateRequest(
        prompt=chat_prompt(body, body.messages), request_id="", media=media, tools=tuple(body.tools or ())
    )
