"""Write whole responses: usage, log probabilities, chat completions and completions, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from trunnion.completion import Completion, CompletionChoice
from trunnion.events import TokenLogprob, Usage

_encode = msgspec.json.Encoder().encode
_LOWEST_LOGPROB: Final = -9999.0
"""What OpenAI writes for a probability of zero; JSON has no infinity."""


def encode(value: object) -> bytes:
    """Return JSON bytes; a lone surrogate, which UTF-8 cannot carry, becomes a question mark."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_clean(value))


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return body


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    raw = list(token.token.encode("utf-8", "replace"))
    return {"token": token.token, "logprob": max(token.logprob, _LOWEST_LOGPROB), "bytes": raw}


def chat_logprobs(tokens: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    """Return the ``logprobs`` of a chat choice."""
    if tokens is None:
        return None
    content = [{**_logprob(token), "top_logprobs": [_logprob(top) for top in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[TokenLogprob] | None, offset: int = 0) -> dict[str, Any] | None:
    """Return the ``logprobs`` of a completions choice; ``offset`` is the characters before these tokens."""
    if tokens is None:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [max(token.logprob, _LOWEST_LOGPROB) for token in tokens],
        "top_logprobs": [{top.token: max(top.logprob, _LOWEST_LOGPROB) for top in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _chat_choice(choice: CompletionChoice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool_calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.tool_calls
        ]
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    return {
        "index": choice.index,
        "message": message,
        "logprobs": chat_logprobs(choice.logprobs),
        "finish_reason": choice.finish_reason or "stop",
    }


def _completion_choice(choice: CompletionChoice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "text": choice.text,
        "logprobs": completion_logprobs(choice.logprobs),
        "finish_reason": choice.finish_reason or "stop",
    }


def chat_response(completion: Completion, response_id: str, created: int, model: str) -> bytes:
    """Return a ``chat.completion`` object."""
    choices = [_chat_choice(choice) for choice in completion.choices]
    return _response("chat.completion", choices, completion, response_id, created, model)


def completion_response(completion: Completion, response_id: str, created: int, model: str) -> bytes:
    """Return a ``text_completion`` object."""
    choices = [_completion_choice(choice) for choice in completion.choices]
    return _response("text_completion", choices, completion, response_id, created, model)


def _response(  # noqa: PLR0917 - the wire's fields
    kind: str, choices: list[dict[str, Any]], completion: Completion, response_id: str, created: int, model: str
) -> bytes:
    return encode(
        {
            "id": response_id,
            "object": kind,
            "created": created,
            "model": model,
            "choices": choices,
            "usage": None if completion.usage is None else usage_json(completion.usage),
        }
    )
