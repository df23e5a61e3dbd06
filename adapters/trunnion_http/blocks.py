"""Bring deltas into blocks that follow one another: reasoning, text, tool calls.

Chat completions tell of everything side by side. Anthropic's Messages and OpenAI's Responses tell of one block after
the other, each with a beginning and an end. A subclass says what they look like as bytes.
"""

from __future__ import annotations

import json
from typing import Literal

from trunnion.errors import InternalError
from trunnion.events import FinishReason, GenerateEvent, TokenLogprob, ToolCallDelta

BlockKind = Literal["reasoning", "text", "tool"]
Logprobs = tuple[TokenLogprob, ...] | None


class BlockFrames:
    """Turn the events of a request with one choice into bytes; see :class:`trunnion_http.generation.StreamFrames`.

    Tool calls that engines mix are told in turn: what comes for a later call waits until the arguments of the open one
    are whole.

    Attributes:
        finish_reason: Why the choice ended; None until it did.
        stop_reason: The stop string that ended it.
    """

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        self._begun = False
        self._open: BlockKind | None = None
        self._call = -1
        self._arguments = ""
        self._waiting: list[ToolCallDelta] = []
        self._told: set[int] = set()

    def feed(self, event: GenerateEvent) -> bytes:
        """Return the bytes of one event."""
        out: list[bytes] = []
        if not self._begun:
            self._begun = True
            out.append(self._start())
        for delta in event.choices:
            if delta.reasoning:
                self._need("reasoning", out)
                out.append(self._reasoning(delta.reasoning))
            if delta.text or delta.logprobs:
                self._need("text", out)
                out.append(self._text(delta.text, delta.logprobs))
            for call in delta.tool_calls:
                self._take(call, out)
            if delta.finish_reason is not None:
                self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason
        return b"".join(out)

    def end(self, event: GenerateEvent) -> bytes:
        """Return what closes the last block and the stream."""
        out: list[bytes] = []
        self._close_all(out)
        out.append(self._stop(event))
        return b"".join(out)

    def _need(self, kind: BlockKind, out: list[bytes]) -> None:
        if self._open != kind:
            self._close_all(out)
            self._open = kind
            out.append(self._begin(kind))

    def _take(self, call: ToolCallDelta, out: list[bytes]) -> None:
        """Write a piece of a call, or let it wait."""
        if self._open == "tool" and call.index == self._call:
            self._go_on(call.arguments, out)
            if self._waiting and self._is_whole():
                self._close(out)
                waiting, self._waiting = self._waiting, []
                for piece in waiting:
                    self._take(piece, out)
        elif call.index in self._told:
            if call.arguments.strip():
                raise InternalError(f"the engine went on with tool call {call.index}, whose arguments were whole")
        elif self._open == "tool" and not self._is_whole():
            self._waiting.append(call)
        else:
            if self._open is not None:
                self._close(out)
            self._begin_call(call, out)

    def _begin_call(self, call: ToolCallDelta, out: list[bytes]) -> None:
        self._open, self._call, self._arguments = "tool", call.index, ""
        out.append(self._begin("tool", call))
        self._go_on(call.arguments, out)

    def _go_on(self, arguments: str, out: list[bytes]) -> None:
        if arguments:
            self._arguments += arguments
            out.append(self._tool(arguments))

    def _is_whole(self) -> bool:
        try:
            json.loads(self._arguments)
        except ValueError:
            return False
        return True

    def _close(self, out: list[bytes]) -> None:
        if self._open is not None:
            if self._open == "tool":
                self._told.add(self._call)
            out.append(self._finish(self._open))
            self._open = None

    def _close_all(self, out: list[bytes]) -> None:
        """Close the open block, then tell of the calls that waited for its end."""
        self._close(out)
        waiting, self._waiting = self._waiting, []
        for call in sorted(waiting, key=lambda piece: piece.index):
            if self._open == "tool" and call.index == self._call:
                self._go_on(call.arguments, out)
            else:
                self._close(out)
                self._begin_call(call, out)
        self._close(out)

    def _start(self) -> bytes:
        """Return what begins the stream."""
        raise NotImplementedError

    def _begin(self, kind: BlockKind, call: ToolCallDelta | None = None) -> bytes:
        """Return what begins a block; ``call`` is the first piece of a tool call."""
        raise NotImplementedError

    def _reasoning(self, text: str) -> bytes:
        raise NotImplementedError

    def _text(self, text: str, logprobs: Logprobs) -> bytes:
        raise NotImplementedError

    def _tool(self, arguments: str) -> bytes:
        raise NotImplementedError

    def _finish(self, kind: BlockKind) -> bytes:
        """Return what ends the open block."""
        raise NotImplementedError

    def _stop(self, event: GenerateEvent) -> bytes:
        """Return what ends the stream; ``event`` has the usage."""
        raise NotImplementedError
