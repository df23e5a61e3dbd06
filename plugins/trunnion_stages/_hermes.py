"""Parse calls that stand between tags: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``."""

from __future__ import annotations

import json

from ._calls import HEAD, Found, head_name, whole_call
from ._hold import hold_from
from ._json_scan import JsonScanner, Scan


class HermesParser:
    """Parse text with tagged calls; what comes out hangs on the characters alone, not on how they were cut up.

    The name goes out once the arguments open, then the arguments as they come. What is no call goes out as the text
    it is, tags included. If JSON breaks off within the arguments, what went out stays and the rest is text.
    Whitespace around calls is dropped.
    """

    __slots__ = ("_buffer", "_end", "_firsts", "_scanner", "_space", "_start", "_step")

    def __init__(self, start: str, end: str) -> None:
        self._start = start
        self._end = end
        self._firsts = frozenset(start[0])
        self._buffer = ""
        self._space: str | None = ""
        self._scanner = JsonScanner()
        self._step = self._in_text

    def feed(self, text: str, out: Found) -> None:
        """Take more text."""
        self._buffer += text
        while self._step(out):
            pass

    def finish(self, out: Found) -> None:
        """Let go of all that was held back."""
        rest, self._buffer = self._buffer, ""
        if self._step == self._in_text:
            self._say(rest, out)
            if not out.count and self._space:
                out.say(self._space)
        elif self._step == self._in_head:
            if not whole_call(self._without_end(rest), out):
                self._say(self._start + rest, out)
        elif self._step == self._in_tail:
            self._close(self._without_end(rest), out)
        else:
            self._say(rest, out)
        self._step = self._in_text

    def _say(self, text: str, out: Found) -> None:
        """Put text out; whitespace before the first text, or behind a call, waits for more."""
        if self._space is not None:
            text = self._space + text
            if not text or text.isspace():
                self._space = text
                return
            self._space = None
        out.say(text)

    def _in_text(self, out: Found) -> bool:
        text = self._buffer
        at = text.find(self._start)
        if at < 0:
            keep = hold_from(text, (self._start,), self._firsts, len(self._start))
            self._buffer = text[keep:]
            if keep:
                self._say(text[:keep], out)
            return False
        self._say(text[:at], out)
        self._buffer = text[at + len(self._start) :]
        self._step = self._in_head
        return True

    def _in_head(self, out: Found) -> bool:
        text = self._buffer
        end = text.find(self._end)
        head = HEAD.match(text, 0, len(text) if end < 0 else end)
        name = head_name(head) if head is not None else None
        if head is not None and name:
            out.begin(name)
            self._space = ""
            self._buffer = text[head.end() :]
            self._scanner = JsonScanner()
            self._step = self._in_arguments
            return True
        if end < 0:
            return False
        if whole_call(text[:end], out):
            self._space = ""
        else:
            self._say(self._start + text[: end + len(self._end)], out)
        self._buffer = text[end + len(self._end) :]
        self._step = self._in_text
        return True

    def _in_arguments(self, out: Found) -> bool:
        piece, index = self._scanner.feed(self._buffer)
        out.argue(piece)
        self._buffer = self._buffer[index:]
        if self._scanner.status is Scan.MORE:
            return False
        self._step = self._in_tail if self._scanner.status is Scan.DONE else self._in_text
        return True

    def _in_tail(self, out: Found) -> bool:
        text = self._buffer
        end = text.find(self._end)
        again = text.find(self._start, 0, len(text) if end < 0 else end)
        if again >= 0:  # the next call without an end of this one
            self._close(text[:again], out)
            self._buffer = text[again:]
        elif end >= 0:
            self._close(text[:end], out)
            self._buffer = text[end + len(self._end) :]
        else:
            return False
        self._step = self._in_text
        return True

    def _close(self, tail: str, out: Found) -> None:
        """Drop the end of a call: its brace, if the model wrote one, and members behind the arguments."""
        if tail.strip() in ("", "}"):
            return
        try:
            json.loads('{"": 0' + tail)
        except ValueError:
            self._say(tail, out)

    def _without_end(self, text: str) -> str:
        """Return text without the beginning of the end tag that it was cut off in."""
        return text[: hold_from(text, (self._end,), frozenset(self._end[0]), len(self._end))]
