"""Gather what a parser finds, and read single calls."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, Final, Protocol

from trunnion.events import ToolCallDelta

HEAD: Final = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)+")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
"""A call up to its arguments, in the order that lets them be streamed."""


class Parser(Protocol):
    """Parse the text of one choice as it comes."""

    def feed(self, text: str, out: Found) -> None:
        """Take more text."""
        ...

    def finish(self, out: Found) -> None:
        """Let go of all that was held back."""
        ...


class Found:
    """Gather text and calls of one choice. Pieces of one call are joined until they are taken.

    ``limit`` is the number of calls that are let through; None for all.
    """

    __slots__ = ("_calls", "_limit", "_text", "count")

    def __init__(self, limit: int | None = None) -> None:
        self.count = 0
        self._limit = limit
        self._text: list[str] = []
        self._calls: list[ToolCallDelta] = []

    def say(self, text: str) -> None:
        """Add text."""
        self._text.append(text)

    def begin(self, name: str) -> None:
        """Begin the next call."""
        self.count += 1
        self._add(ToolCallDelta(index=self.count - 1, id=f"call_{secrets.token_hex(12)}", name=name))

    def argue(self, piece: str) -> None:
        """Add to the arguments of the call that began last."""
        if not piece:
            return
        last = self._calls[-1] if self._calls else None
        if last is not None and last.index == self.count - 1:
            self._calls[-1] = ToolCallDelta(
                index=last.index, id=last.id, name=last.name, arguments=last.arguments + piece
            )
        else:
            self._add(ToolCallDelta(index=self.count - 1, arguments=piece))

    def _add(self, call: ToolCallDelta) -> None:
        if self._limit is None or call.index < self._limit:
            self._calls.append(call)

    def take(self) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Return what was gathered since the last time."""
        taken = "".join(self._text), tuple(self._calls)
        self._text.clear()
        self._calls.clear()
        return taken


def head_name(head: re.Match[str]) -> str | None:
    """Return the name of a call whose head matched; None if it is no JSON string after all."""
    try:
        return str(json.loads(head.group(1)))
    except ValueError:
        return None


def whole_call(raw: str, out: Found) -> bool:
    """Add a call that is complete, in whatever order of its members; False, and nothing added, if it is none."""
    try:
        call = json.loads(raw)
        name = call["name"]
        arguments: Any = call.get("arguments", call.get("parameters"))
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return False
    out.begin(name)
    out.argue(json.dumps(arguments, ensure_ascii=False))
    return True


MakeParser = Callable[[], Parser]
