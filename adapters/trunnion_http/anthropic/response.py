"""Write whole messages and their parts as JSON values, as https://docs.anthropic.com/en/api/messages has them."""

from __future__ import annotations

import json
from typing import Any, Final

from trunnion.completion import Completion, CompletionChoice, ToolCall
from trunnion.errors import InternalError
from trunnion.events import FinishReason, Usage

_REASONS: Final[dict[FinishReason | None, str]] = {
    None: "end_turn",
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def message_json(
    completion: Completion, message_id: str, model: str, *, max_tokens: int, stops: tuple[str, ...]
) -> dict[str, Any]:
    """Return a whole message. Raises :class:`InternalError` where a tool call's arguments are no JSON object."""
    choice, usage = completion.choices[0] if completion.choices else CompletionChoice(), completion.usage
    assert usage is not None, "collect() raises without one"
    content: list[dict[str, Any]] = []
    if choice.reasoning:
        content.append({"type": "thinking", "thinking": choice.reasoning, "signature": ""})
    if choice.text:
        content.append({"type": "text", "text": choice.text, "citations": None})
    cut_off = choice.finish_reason == "length"
    content.extend(_tool_use(call, cut_off=cut_off) for call in choice.tool_calls)
    reason, sequence = stop_reason(choice.finish_reason, choice.stop_reason, usage, max_tokens=max_tokens, stops=stops)
    return {
        **_frame(message_id, model),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage_json(usage),
    }


def empty_message(message_id: str, model: str) -> dict[str, Any]:
    """Return the message that a stream begins with. What the prompt cost is known at its end."""
    usage = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {**_frame(message_id, model), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}


def _frame(message_id: str, model: str) -> dict[str, Any]:
    return {"id": message_id, "type": "message", "role": "assistant", "model": model, "stop_details": None}


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return Anthropic's usage object, where ``input_tokens`` does not count the cached ones."""
    body: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return body


def stop_reason(
    finish: FinishReason | None, stopped_by: str | int | None, usage: Usage, *, max_tokens: int, stops: tuple[str, ...]
) -> tuple[str, str | None]:
    """Return ``stop_reason`` and ``stop_sequence``."""
    if finish == "stop" and isinstance(stopped_by, str) and stopped_by in stops:
        return "stop_sequence", stopped_by
    if finish == "length" and usage.completion_tokens < max_tokens:
        return "model_context_window_exceeded", None
    return _REASONS[finish], None


def _tool_use(call: ToolCall, *, cut_off: bool) -> dict[str, Any]:
    """Return a call as a block. One that ran into ``max_tokens`` has what was made of its input as text."""
    try:
        made = json.loads(call.arguments or "{}")
    except ValueError as error:
        if not cut_off:
            msg = f"the model called {call.name!r} with arguments that are not JSON; send the request again"
            raise InternalError(msg) from error
        made = None
    if not isinstance(made, dict):
        if not cut_off:
            raise InternalError(f"the model called {call.name!r} with arguments that are no object; send it again")
        made = {}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": made}
