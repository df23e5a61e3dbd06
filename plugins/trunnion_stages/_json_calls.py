"""Parse calls that are bare JSON: one object, an array of them, or the arguments of a named function alone."""

from __future__ import annotations

from ._calls import HEAD, Found, MakeParser, Parser, head_name, whole_call
from ._json_scan import JsonScanner, Scan


class JsonParser:
    """Parse output that is calls altogether; output that begins otherwise goes to another parser or is text.

    ``name`` is the function whose arguments are the whole output; None for objects with name and arguments.
    """

    __slots__ = ("_buffer", "_first", "_name", "_other", "_raw", "_scanner", "_spoken", "_step")

    def __init__(self, name: str | None, other: MakeParser) -> None:
        self._name = name
        self._other = other
        self._buffer = ""
        self._raw = ""
        self._spoken = False
        self._scanner = JsonScanner()
        self._first: Parser | None = None
        self._step = self._at_start

    def feed(self, text: str, out: Found) -> None:
        """Take more text."""
        self._buffer += text
        while self._step(out):
            pass

    def finish(self, out: Found) -> None:
        """Let go of all that was held back."""
        if self._first is not None:
            self._first.finish(out)
        elif self._step in (self._at_start, self._in_head) or not out.count:
            out.say(self._raw + self._buffer)
        self._buffer = self._raw = ""
        self._step = self._in_text

    def _at_start(self, out: Found) -> bool:
        bare = self._buffer.lstrip()
        if not bare:
            return False
        if bare[0] == "{" and self._name is not None:
            out.begin(self._name)
            self._buffer = bare
            self._step = self._in_arguments
        elif bare[0] in "[{" and self._name is None:
            self._raw = self._buffer[: len(self._buffer) - len(bare)] + ("[" if bare[0] == "[" else "")
            self._buffer = bare[1:] if bare[0] == "[" else bare
            self._step = self._between
        else:
            self._first = self._other()
            self._step = self._elsewhere
        return True

    def _elsewhere(self, out: Found) -> bool:
        text, self._buffer = self._buffer, ""
        if self._first is not None:
            self._first.feed(text, out)
        return False

    def _in_text(self, out: Found) -> bool:
        text, self._buffer, self._raw = self._raw + self._buffer, "", ""
        if out.count and not self._spoken and not text.strip():
            self._raw = text  # whitespace behind a call; dropped unless text follows
            return False
        self._spoken = True
        out.say(text)
        return False

    def _between(self, out: Found) -> bool:
        """Look for the next object; separators and the closing bracket are no text once there was a call."""
        bare = self._buffer.lstrip(" \t\r\n,;]" if out.count else " \t\r\n")
        if not out.count:
            self._raw += self._buffer[: len(self._buffer) - len(bare)]
        self._buffer = bare
        if not bare:
            return False
        self._step = self._in_head if bare[0] == "{" else self._in_text
        return True

    def _in_head(self, out: Found) -> bool:
        head = HEAD.match(self._buffer)
        name = head_name(head) if head is not None else None
        if head is not None and name:
            out.begin(name)
            self._raw, self._buffer = "", self._buffer[head.end() :]
            self._scanner = JsonScanner()
            self._step = self._in_arguments
            return True
        scanner = JsonScanner()
        _, index = scanner.feed(self._buffer)
        if scanner.status is Scan.MORE:
            return False
        if scanner.status is Scan.DONE and whole_call(self._buffer[:index], out):
            self._raw, self._buffer = "", self._buffer[index:]
            self._step = self._between
        else:
            self._step = self._in_text
        return True

    def _in_arguments(self, out: Found) -> bool:
        piece, index = self._scanner.feed(self._buffer)
        out.argue(piece)
        self._buffer = self._buffer[index:]
        if self._scanner.status is Scan.MORE:
            return False
        if self._scanner.status is Scan.BROKEN or self._name is not None:
            self._step = self._in_text
        else:
            self._scanner = JsonScanner(inside=True)
            self._step = self._in_tail
        return True

    def _in_tail(self, out: Found) -> bool:  # noqa: ARG002 - all steps are called alike
        """Drop the rest of the object: its brace and members behind the arguments."""
        _, index = self._scanner.feed(self._buffer)
        self._buffer = self._buffer[index:]
        if self._scanner.status is Scan.MORE:
            return False
        self._step = self._between if self._scanner.status is Scan.DONE else self._in_text
        return True
