"""Write an answer as bytes and read it back: MessagePack arrays, a fifth of the size of named fields."""

from __future__ import annotations

from array import array
from typing import Any, Final

import msgspec

from trunnion import Completion
from trunnion.completion import CompletionChoice, ToolCall
from trunnion.events import TokenLogprob, Usage
from trunnion.pooling import PoolingAnswer
from trunnion.row_tasks import RowAnswer

_FORMAT: Final = 1
_POOLED: Final = 2
_HEADS: Final = frozenset(bytes([0x94, number]) for number in (_FORMAT, _POOLED))
"""An array of four, the first of which is the format: of a completion, or of a vector, labels or scores."""
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder()


def pack(answer: RowAnswer) -> bytes:
    """Return an answer as bytes. A prefill's ``handoff`` is left out: what it names is gone by then."""
    if isinstance(answer, PoolingAnswer):
        return _pack_pooled(answer)
    completion, usage = answer, answer.usage
    logprobs = completion.prompt_logprobs
    return _encoder.encode(
        (
            _FORMAT,
            [_choice(choice) for choice in completion.choices],
            None if usage is None else _usage(usage),
            None if logprobs is None else [None if one is None else _logprob(one) for one in logprobs],
        )
    )


def is_readable(data: bytes) -> bool:
    """Tell whether :func:`unpack` knows the format; that of another version it may not."""
    return data[:2] in _HEADS


def unpack(data: bytes) -> RowAnswer:
    """Return what :func:`pack` wrote."""
    number, choices, usage, logprobs = _decoder.decode(data)
    if number == _POOLED:
        return _read_pooled(choices, usage, logprobs)
    return Completion(
        choices=[_read_choice(index, choice) for index, choice in enumerate(choices)],
        usage=None if usage is None else _read_usage(usage),
        prompt_logprobs=None
        if logprobs is None
        else tuple(None if one is None else _read_logprob(one) for one in logprobs),
    )


def _pack_pooled(answer: PoolingAnswer) -> bytes:
    numbers = answer.vector or answer.scores or list(answer.probabilities.values())
    return _encoder.encode(
        (_POOLED, [answer.task, list(answer.probabilities)], _usage(answer.usage), array("d", numbers).tobytes())
    )


def _read_pooled(asked: list[Any], usage: list[int], data: bytes) -> PoolingAnswer:
    task, labels = asked
    numbers = array("d", data).tolist()
    return PoolingAnswer(
        task=task,
        usage=_read_usage(usage),
        vector=numbers if task == "embed" else (),
        scores=numbers if task == "score" else (),
        probabilities=dict(zip(labels, numbers, strict=True)) if task == "classify" else {},
    )


def _usage(usage: Usage) -> tuple[int, ...]:
    return usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens


def _read_usage(usage: list[int]) -> Usage:
    return Usage(prompt_tokens=usage[0], completion_tokens=usage[1], cached_tokens=usage[2], reasoning_tokens=usage[3])


def _choice(choice: CompletionChoice) -> tuple[Any, ...]:
    return (
        choice.text,
        list(choice.token_ids),
        choice.reasoning,
        [(call.id, call.name, call.arguments) for call in choice.tool_calls],
        None if choice.logprobs is None else [_logprob(one) for one in choice.logprobs],
        choice.finish_reason,
        choice.stop_reason,
    )


def _read_choice(index: int, values: list[Any]) -> CompletionChoice:
    text, token_ids, reasoning, calls, logprobs, finish_reason, stop_reason = values
    return CompletionChoice(
        index=index,
        text=text,
        token_ids=token_ids,
        reasoning=reasoning,
        tool_calls=[ToolCall(id=call[0], name=call[1], arguments=call[2]) for call in calls],
        logprobs=None if logprobs is None else [_read_logprob(one) for one in logprobs],
        finish_reason=finish_reason,
        stop_reason=stop_reason,
    )


def _logprob(one: TokenLogprob) -> tuple[Any, ...]:
    return (one.token_id, one.token, one.logprob, [_logprob(other) for other in one.top])


def _read_logprob(values: list[Any]) -> TokenLogprob:
    token_id, token, logprob, top = values
    return TokenLogprob(
        token_id=token_id, token=token, logprob=logprob, top=tuple(_read_logprob(other) for other in top)
    )
