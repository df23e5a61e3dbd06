"""Write streams of OpenAI's Responses API as server-sent events.

Format: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from typing import Any

from trunnion.errors import TrunnionError
from trunnion.events import GenerateEvent, TokenLogprob, ToolCallDelta
from trunnion_http.blocks import BlockFrames, BlockKind, Logprobs
from trunnion_http.wire import encode

from .response import (
    Envelope,
    call_item,
    event_logprobs,
    item_id,
    message_item,
    reasoning_item,
    status_of,
    text_part,
)

_PREFIX = {"text": "msg", "reasoning": "rs", "tool": "fc"}


class ResponseFrames(BlockFrames):
    """Write one response as numbered events; each block is an item of its output."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__()
        self._envelope = envelope
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._item = ""
        self._said: list[str] = []
        self._logprobs: list[TokenLogprob] | None = None
        self._called = ("", "")

    def failed(self, error: TrunnionError) -> bytes:
        """Return the event that tells of a failure after the stream began."""
        return self._event("response.failed", {"response": self._envelope.failed(self._output, error)})

    def _event(self, kind: str, body: dict[str, Any]) -> bytes:
        number = self._number
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, "sequence_number": number, **body}))

    def _in_item(self, kind: str, body: dict[str, Any], *, part: bool = False) -> bytes:
        """Return an event within the open item, or within its only part of content."""
        where: dict[str, Any] = {"item_id": self._item, "output_index": len(self._output)}
        if part:
            where["content_index"] = 0
        return self._event(kind, where | body)

    def _start(self) -> bytes:
        begun = {"response": self._envelope.begun()}
        return self._event("response.created", begun) + self._event("response.in_progress", begun)

    def _begin(self, kind: BlockKind, call: ToolCallDelta | None = None) -> bytes:
        index = len(self._output)
        self._item = item_id(self._envelope.id, _PREFIX[kind], index)
        self._said, self._logprobs = [], None
        part: dict[str, Any] | None = None
        if kind == "text":
            item = message_item(self._item, None, None, "in_progress")
            part = text_part("", None)
        elif kind == "reasoning":
            item = reasoning_item(self._item, None, "in_progress")
            part = {"type": "reasoning_text", "text": ""}
        else:
            assert call is not None
            self._called = (call.id or f"call_{self._item}", call.name or "")
            item = call_item(self._item, *self._called, "", "in_progress")
        begun = self._event("response.output_item.added", {"output_index": index, "item": item})
        if part is not None:
            begun += self._in_item("response.content_part.added", {"part": part}, part=True)
        return begun

    def _reasoning(self, text: str) -> bytes:
        self._said.append(text)
        return self._in_item("response.reasoning_text.delta", {"delta": text}, part=True)

    def _text(self, text: str, logprobs: Logprobs) -> bytes:
        self._said.append(text)
        if logprobs is not None:
            self._logprobs = [*(self._logprobs or ()), *logprobs]
        body = {"delta": text, "logprobs": event_logprobs(logprobs)}
        return self._in_item("response.output_text.delta", body, part=True)

    def _tool(self, arguments: str) -> bytes:
        self._said.append(arguments)
        return self._in_item("response.function_call_arguments.delta", {"delta": arguments})

    def _finish(self, kind: BlockKind) -> bytes:
        text = "".join(self._said)
        status = "completed" if kind == "reasoning" else status_of(self.finish_reason)
        if kind == "tool":
            item = call_item(self._item, *self._called, text, status)
            out = self._in_item("response.function_call_arguments.done", {"arguments": text})
        elif kind == "text":
            item = message_item(self._item, text, self._logprobs, status)
            body = {"text": text, "logprobs": event_logprobs(self._logprobs)}
            out = self._in_item("response.output_text.done", body, part=True)
            out += self._in_item("response.content_part.done", {"part": item["content"][0]}, part=True)
        else:
            item = reasoning_item(self._item, text, status)
            out = self._in_item("response.reasoning_text.done", {"text": text}, part=True)
            out += self._in_item("response.content_part.done", {"part": item["content"][0]}, part=True)
        out += self._event("response.output_item.done", {"output_index": len(self._output), "item": item})
        self._output.append(item)
        return out

    def _stop(self, event: GenerateEvent) -> bytes:
        usage = event.usage
        assert usage is not None, "the last event has it"
        out = b""
        if not any(item["type"] in ("message", "function_call") for item in self._output):
            out = self._begin("text") + self._finish("text")  # as a whole answer has a message that says nothing
        made = self._envelope.done(self._output, self.finish_reason, usage)
        return out + self._event(f"response.{made['status']}", {"response": made})
