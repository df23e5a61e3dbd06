"""Check JSON as it grows, character by character (RFC 8259)."""

from __future__ import annotations

import json
import re
from enum import Enum, auto
from typing import Final

_RUN: Final = re.compile(r'[^"\\\x00-\x1f]+')
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SPACE: Final = " \t\n\r"
_LITERALS: Final = ("true", "false", "null")


class Scan(Enum):
    """Tell how far a value has come."""

    MORE = auto()
    DONE = auto()
    BROKEN = auto()


class JsonScanner:
    """Follow one JSON object to its closing brace.

    Raw control characters in strings, which models write, are put out as escapes; all else as it came.
    """

    __slots__ = ("_expect", "_key", "_part", "_stack", "status")

    def __init__(self, *, inside: bool = False) -> None:
        """Begin before an object, or with ``inside`` right behind one of its members."""
        self.status = Scan.MORE
        self._stack: list[str] = ["{"] if inside else []
        self._expect = "after" if inside else "open"
        self._part = ""
        self._key = False

    def feed(self, text: str) -> tuple[str, int]:
        """Return the JSON that was taken and the index up to which; look at ``status`` for why it ended there."""
        out: list[str] = []
        index = 0
        while index < len(text) and self.status is Scan.MORE:
            if self._expect == "string":
                run = _RUN.match(text, index)
                if run is not None:
                    out.append(run.group())
                    index = run.end()
                    continue
            char = text[index]
            if self._expect == "number" and char not in "0123456789+-.eE":
                self._end_number()
                continue
            self._step(char)
            if self._broken():
                break
            out.append(json.dumps(char)[1:-1] if self._expect == "string" and char < " " else char)
            index += 1
        return "".join(out), index

    def _broken(self) -> bool:
        return self.status is Scan.BROKEN

    def _step(self, char: str) -> None:
        expect = self._expect
        if expect == "string":
            if char == '"':
                self._expect = "colon" if self._key else "after"
            elif char == "\\":
                self._expect = "escape"
        elif expect == "escape":
            self._escape(char)
        elif expect == "number":
            self._part += char
        elif expect == "literal":
            self._literal(char)
        elif char in _SPACE:
            pass
        elif expect in ("value", "first_item"):
            self._value(char)
        else:
            self._structure(char)

    def _escape(self, char: str) -> None:
        if self._part:  # within \\uXXXX
            self._part += char
            if char not in "0123456789abcdefABCDEF":
                self.status = Scan.BROKEN
            elif len(self._part) == len("uXXXX"):
                self._part, self._expect = "", "string"
        elif char == "u":
            self._part = char
        elif char in '"\\/bfnrt':
            self._expect = "string"
        else:
            self.status = Scan.BROKEN

    def _literal(self, char: str) -> None:
        self._part += char
        if self._part in _LITERALS:
            self._expect = "after"
        elif not any(literal.startswith(self._part) for literal in _LITERALS):
            self.status = Scan.BROKEN

    def _end_number(self) -> None:
        if _NUMBER.fullmatch(self._part):
            self._expect = "after"
        else:
            self.status = Scan.BROKEN

    def _value(self, char: str) -> None:
        if char == '"':
            self._expect, self._key, self._part = "string", False, ""
        elif char in "{[":
            self._stack.append(char)
            self._expect = "first_key" if char == "{" else "first_item"
        elif char in "-0123456789":
            self._expect, self._part = "number", char
        elif char in "tfn":
            self._expect, self._part = "literal", char
        elif char == "]" and self._expect == "first_item":
            self._close(char)
        else:
            self.status = Scan.BROKEN

    def _structure(self, char: str) -> None:
        expect = self._expect
        if char == '"' and expect in ("key", "first_key"):
            self._expect, self._key, self._part = "string", True, ""
        elif char == ":" and expect == "colon":
            self._expect = "value"
        elif char == "," and expect == "after":
            self._expect = "key" if self._stack[-1] == "{" else "value"
        elif char in "}]" and expect in ("after", "first_key"):
            self._close(char)
        elif char == "{" and expect == "open":
            self._stack.append(char)
            self._expect = "first_key"
        else:
            self.status = Scan.BROKEN

    def _close(self, char: str) -> None:
        if self._stack.pop() != ("{" if char == "}" else "["):
            self.status = Scan.BROKEN
        elif not self._stack:
            self.status = Scan.DONE
        else:
            self._expect = "after"
