"""Write whole responses and their items as JSON values.

Format: https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from msgspec import to_builtins

from trunnion.completion import Completion, CompletionChoice
from trunnion.errors import InvalidArgument, Overloaded, TrunnionError
from trunnion.events import FinishReason, TokenLogprob, Usage
from trunnion_http.wire.encode import chat_logprobs

from .body import ResponsesBody

_CUT: Final[dict[FinishReason | None, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete."""


class Envelope:
    """Write the objects of one response, which differ in status, output and usage alone."""

    def __init__(self, response_id: str, created: int, model: str, body: ResponsesBody) -> None:
        choice, wanted = body.tool_choice, None if body.text is None else body.text.format
        effort = None if body.reasoning is None else body.reasoning.effort
        self.id = response_id
        self._fixed: dict[str, Any] = {
            "id": response_id,
            "object": "response",
            "created_at": created,
            "model": model,
            "background": False,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "prompt_cache_key": body.prompt_cache_key,
            "reasoning": {"effort": effort, "summary": None},
            "safety_identifier": body.safety_identifier,
            "service_tier": "default",
            "temperature": body.temperature,
            "text": {"format": {"type": "text"} if wanted is None else _format(to_builtins(wanted))},
            "tool_choice": "auto" if choice is None else choice,
            "tools": [{"parameters": None, "strict": None, **tool} for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": body.top_p,
            "truncation": "disabled",
            "user": body.user,
        }

    def begun(self) -> dict[str, Any]:
        """Return the response that a stream begins with."""
        return self._made("in_progress", [])

    def done(self, output: Sequence[dict[str, Any]], finish: FinishReason | None, usage: Usage) -> dict[str, Any]:
        """Return the response with its whole output."""
        cut = _CUT.get(finish)
        made = self._made("incomplete" if cut else "completed", output)
        made["incomplete_details"] = {"reason": cut} if cut else None
        made["completed_at"] = None if cut else int(time.time())
        made["usage"] = _usage(usage)
        return made

    def failed(self, output: Sequence[dict[str, Any]], error: TrunnionError) -> dict[str, Any]:
        """Return the response that broke off."""
        made = self._made("failed", output)
        code = "server_error"
        if isinstance(error, Overloaded):
            code = "rate_limit_exceeded"
        elif isinstance(error, InvalidArgument):
            code = "invalid_prompt"
        made["error"] = {"code": code, "message": error.message}
        return made

    def _made(self, status: str, output: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            **self._fixed,
            "status": status,
            "output": list(output),
            "error": None,
            "incomplete_details": None,
            "completed_at": None,
            "usage": None,
        }


def item_id(response_id: str, kind: str, index: int) -> str:
    """Return the id of an output item, such as ``msg_..._0``."""
    return f"{kind}_{response_id.removeprefix('resp_')}_{index}"


def status_of(finish: FinishReason | None) -> str:
    """Return the status of the items that a response ends with."""
    return "incomplete" if finish in _CUT else "completed"


def output_items(completion: Completion, response_id: str) -> list[dict[str, Any]]:
    """Return the output of a whole response: reasoning, text, calls. A cut off one is cut off in its last item."""
    choice = completion.choices[0] if completion.choices else CompletionChoice()
    items: list[dict[str, Any]] = []
    if choice.reasoning:
        items.append(reasoning_item(item_id(response_id, "rs", 0), choice.reasoning, "completed"))
    if choice.text or not choice.tool_calls:
        made = message_item(item_id(response_id, "msg", len(items)), choice.text, choice.logprobs, "completed")
        items.append(made)
    for call in choice.tool_calls:
        identifier = item_id(response_id, "fc", len(items))
        items.append(call_item(identifier, call.id, call.name, call.arguments, "completed"))
    items[-1]["status"] = status_of(choice.finish_reason)
    return items


def reasoning_item(identifier: str, text: str | None, status: str) -> dict[str, Any]:
    """Return what the model thought; ``text`` is None before it thought anything."""
    content = [] if text is None else [{"type": "reasoning_text", "text": text}]
    return {"id": identifier, "type": "reasoning", "summary": [], "content": content, "status": status}


def message_item(
    identifier: str, text: str | None, logprobs: Sequence[TokenLogprob] | None, status: str
) -> dict[str, Any]:
    """Return what the model said; ``text`` is None before it said anything."""
    content = [] if text is None else [text_part(text, logprobs)]
    return {"id": identifier, "type": "message", "role": "assistant", "content": content, "status": status}


def text_part(text: str, logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any]:
    """Return a part of text."""
    listed = chat_logprobs(logprobs)
    return {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": [] if listed is None else listed["content"],
    }


def call_item(identifier: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    """Return a call."""
    return {
        "id": identifier,
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def event_logprobs(tokens: Sequence[TokenLogprob] | None) -> list[dict[str, Any]]:
    """Return log probabilities as the events of text have them: without bytes."""
    listed = chat_logprobs(tokens)
    if listed is None:
        return []
    return [
        _no_bytes(token) | {"top_logprobs": list(map(_no_bytes, token["top_logprobs"]))} for token in listed["content"]
    ]


def _no_bytes(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "logprob": token["logprob"]}


def _format(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
