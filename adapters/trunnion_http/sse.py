"""Write streams as server-sent events, at the level of bytes.

What does not change over a stream (id, created, model) is encoded once; per event only the delta is. One event of the
engine becomes one piece of bytes, so it costs one ``send()`` however many choices it carries. Format:
https://platform.openai.com/docs/api-reference/chat-streaming, framed as in
https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from trunnion.errors import TrunnionError
from trunnion.events import ChoiceDelta, GenerateEvent, ToolCallDelta

from .errors import encode_error
from .wire.encode import chat_logprobs, completion_logprobs, encode, usage_json

DONE: Final = b"data: [DONE]\n\n"
_encode_text = msgspec.json.Encoder().encode
_join = b"".join


def error_frame(error: TrunnionError) -> bytes:
    """Return the event that tells of a failure after the stream began."""
    return b"data: %b\n\n" % encode_error(error)


class Frames:
    """Turn the events of one stream into bytes. A subclass says what its choices look like."""

    __slots__ = ("_first", "_include_usage", "_prefix", "_seen", "_tail", "_text", "_text_end")

    _kind = b""
    _text_start = b""
    _text_stop = b""

    def __init__(self, response_id: str, created: int, model: str, *, include_usage: bool) -> None:
        self._prefix = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            encode(response_id),
            self._kind,
            created,
            encode(model),
        )
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._text = self._prefix + self._text_start
        self._text_end = self._text_stop + self._tail
        self._include_usage = include_usage
        self._first = True
        self._seen: dict[int, int] = {}

    def feed(self, event: GenerateEvent) -> bytes:
        """Return the frames of one event; empty if it has nothing for the client."""
        choices = event.choices
        if len(choices) == 1 and not self._first:
            delta = choices[0]
            # The common case by far: text for the first choice and nothing else.
            if (
                delta.finish_reason is None
                and not delta.index
                and delta.logprobs is None
                and not delta.tool_calls
                and not delta.reasoning
            ):
                if not delta.text:
                    return b""
                try:
                    return _join((self._text, _encode_text(delta.text), self._text_end))
                except UnicodeEncodeError:
                    return _join((self._text, encode(delta.text), self._text_end))
        self._first = False
        frames = [self._frame(delta) for delta in choices]
        return _join([self._prefix + encode(frame) + self._tail for frame in frames if frame is not None])

    def end(self, event: GenerateEvent) -> bytes:
        """Return what follows the last frame: the usage, if asked for, and the end mark."""
        if not self._include_usage or event.usage is None:
            return DONE
        usage = encode(usage_json(event.usage))
        return _join((self._prefix, b'],"usage":', usage, b"}\n\n", DONE))

    def _frame(self, delta: ChoiceDelta) -> dict[str, Any] | None:
        raise NotImplementedError


class ChatFrames(Frames):
    """Write ``chat.completion.chunk`` events."""

    __slots__ = ()

    _kind = b"chat.completion.chunk"
    _text_start = b'{"index":0,"delta":{"content":'
    _text_stop = b'},"logprobs":null,"finish_reason":null}'

    def _frame(self, delta: ChoiceDelta) -> dict[str, Any] | None:
        body: dict[str, Any] = {}
        if delta.index not in self._seen:
            self._seen[delta.index] = 0
            # The role rides on the first delta: a frame of its own would cost a send and carry nothing.
            body["role"] = "assistant"
            body["content"] = None if delta.tool_calls and not delta.text else delta.text
        elif delta.text:
            body["content"] = delta.text
        if delta.reasoning:
            body["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            body["tool_calls"] = [_tool_call(call) for call in delta.tool_calls]
        if not body and delta.finish_reason is None and not delta.logprobs:
            return None
        return {
            "index": delta.index,
            "delta": body,
            "logprobs": chat_logprobs(delta.logprobs),
            "finish_reason": delta.finish_reason,
        }


class CompletionFrames(Frames):
    """Write ``text_completion`` events."""

    __slots__ = ()

    _kind = b"text_completion"
    _text_start = b'{"index":0,"text":'
    _text_stop = b',"logprobs":null,"finish_reason":null}'

    def _frame(self, delta: ChoiceDelta) -> dict[str, Any] | None:
        if not delta.text and delta.finish_reason is None and not delta.logprobs:
            return None
        offset = self._seen.get(delta.index, 0)
        if delta.logprobs:
            self._seen[delta.index] = offset + sum(len(token.token) for token in delta.logprobs)
        return {
            "index": delta.index,
            "text": delta.text,
            "logprobs": completion_logprobs(delta.logprobs, offset),
            "finish_reason": delta.finish_reason,
        }


def _tool_call(call: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": call.arguments}
    body: dict[str, Any] = {"index": call.index, "function": function}
    if call.id is not None or call.name is not None:
        body |= {"id": call.id, "type": "function"}
        function["name"] = call.name
    return body
