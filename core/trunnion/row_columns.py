"""Turn completions and errors into the output columns of a row: always all of them, so that blocks share a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from .completion import Completion, CompletionChoice
from .errors import TrunnionError
from .events import TokenLogprob, Usage

OUTPUT_COLUMNS: Final = (
    "generated_text",
    "generated_tokens",
    "finish_reason",
    "num_input_tokens",
    "num_generated_tokens",
    "usage",
    "tool_calls",
    "reasoning",
    "choices",
    "prompt_logprobs",
    "error",
)


def completion_to_columns(completion: Completion) -> dict[str, Any]:
    """Return the output columns of an answered row.

    Text, tokens and finish reason are the first choice's. ``choices`` is JSON text with every choice whole where
    the others tell less than all (n > 1, logprobs), else None; ``tool_calls`` is JSON text of OpenAI's list or None.
    """
    first = completion.choices[0] if completion.choices else CompletionChoice()
    usage = completion.usage
    whole = len(completion.choices) > 1 or first.logprobs is not None
    return {
        "generated_text": first.text,
        "generated_tokens": list(first.token_ids),
        "finish_reason": first.finish_reason,
        "num_input_tokens": usage.prompt_tokens if usage else 0,
        "num_generated_tokens": usage.completion_tokens if usage else len(first.token_ids),
        "usage": None if usage is None else usage_column(usage),
        "tool_calls": json.dumps(_calls(first)) if first.tool_calls else None,
        "reasoning": first.reasoning or None,
        "choices": json.dumps([_choice(choice) for choice in completion.choices]) if whole else None,
        "prompt_logprobs": None
        if completion.prompt_logprobs is None
        else json.dumps([None if one is None else _logprob(one) for one in completion.prompt_logprobs]),
        "error": None,
    }


def usage_column(usage: Usage) -> dict[str, int]:
    """Return the counts of tokens as the column ``usage`` has them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def error_columns(error: TrunnionError) -> dict[str, Any]:
    """Return the output columns of a row that failed: an ``error``, no text, counts of zero.

    The error is :meth:`TrunnionError.to_dict` with ``details`` as JSON text, because Parquet has no empty structs;
    :func:`error_from_column` undoes it.
    """
    data = error.to_dict()
    data["details"] = json.dumps(data["details"], default=str)
    columns: dict[str, Any] = dict.fromkeys(OUTPUT_COLUMNS)
    return {**columns, "generated_tokens": [], "num_input_tokens": 0, "num_generated_tokens": 0, "error": data}


def error_from_column(value: Mapping[str, Any]) -> TrunnionError:
    """Rebuild the error of a row from its ``error`` column."""
    data = dict(value)
    details = data.get("details")
    data["details"] = json.loads(details) if isinstance(details, str) else dict(details or {})
    return TrunnionError.from_dict(data)


def _calls(choice: CompletionChoice) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in choice.tool_calls
    ]


def _choice(choice: CompletionChoice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "text": choice.text,
        "token_ids": list(choice.token_ids),
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "reasoning": choice.reasoning or None,
        "tool_calls": _calls(choice) or None,
        "logprobs": None if choice.logprobs is None else [_logprob(one) for one in choice.logprobs],
    }


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    made: dict[str, Any] = {"token_id": one.token_id, "token": one.token, "logprob": one.logprob}
    if one.top:
        made["top"] = [_logprob(other) for other in one.top]
    return made
