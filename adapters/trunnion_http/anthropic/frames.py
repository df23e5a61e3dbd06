"""Write streams of Anthropic's Messages API as server-sent events.

Format: https://docs.anthropic.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

from typing import Any, Final

from trunnion.errors import TrunnionError
from trunnion.events import GenerateEvent, ToolCallDelta
from trunnion_http.blocks import BlockFrames, BlockKind, Logprobs
from trunnion_http.wire import encode

from .errors import encode_error
from .response import empty_message, stop_reason, usage_json

_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b%b}}\n\n'


def _event(kind: str, body: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **body}))


def error_event(error: TrunnionError, request_id: str) -> bytes:
    """Return the event that tells of a failure after the stream began."""
    return b"event: error\ndata: %b\n\n" % encode_error(error, request_id)


class MessageFrames(BlockFrames):
    """Write one message as events."""

    def __init__(self, message_id: str, model: str, *, max_tokens: int, stops: tuple[str, ...]) -> None:
        super().__init__()
        self._id = message_id
        self._model = model
        self._max_tokens = max_tokens
        self._stops = stops
        self._index = -1

    def _start(self) -> bytes:
        return _event("message_start", {"message": empty_message(self._id, self._model)})

    def _begin(self, kind: BlockKind, call: ToolCallDelta | None = None) -> bytes:
        self._index += 1
        block: dict[str, Any]
        if kind == "text":
            block = {"type": "text", "text": "", "citations": None}
        elif kind == "reasoning":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            assert call is not None
            block = {"type": "tool_use", "id": call.id or f"{self._id}_{self._index}", "name": call.name, "input": {}}
        return _event("content_block_start", {"index": self._index, "content_block": block})

    def _reasoning(self, text: str) -> bytes:
        return _DELTA % (self._index, b'"thinking_delta","thinking":', encode(text))

    def _text(self, text: str, logprobs: Logprobs) -> bytes:  # noqa: ARG002 - no request of this format asks for them
        return _DELTA % (self._index, b'"text_delta","text":', encode(text))

    def _tool(self, arguments: str) -> bytes:
        return _DELTA % (self._index, b'"input_json_delta","partial_json":', encode(arguments))

    def _finish(self, kind: BlockKind) -> bytes:  # noqa: ARG002 - all end alike
        return _event("content_block_stop", {"index": self._index})

    def _stop(self, event: GenerateEvent) -> bytes:
        usage = event.usage
        assert usage is not None, "the last event has it"
        reason, sequence = stop_reason(
            self.finish_reason, self.stop_reason, usage, max_tokens=self._max_tokens, stops=self._stops
        )
        delta = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None}
        return _event("message_delta", {"delta": delta, "usage": usage_json(usage)}) + _STOP
