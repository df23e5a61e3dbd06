"""Write result lines as they come, and read what earlier owners of a batch left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from .disk import names
from .lines import fingerprint
from .state import State, Tokens

Kind = Literal["results", "errors"]
UNDONE: Final = {
    "expired": "batch_expired",
    "cancelled": "batch_cancelled",
}
"""How a batch may end before all is done, and the codes that lines then get which were never answered."""
_TURN: Final = 64
_KINDS: Final[tuple[Kind, ...]] = ("results", "errors")


class _Details(msgspec.Struct):
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class _Usage(msgspec.Struct):
    """Read the counts of chat, completions and the rest, and those of Responses."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


class _Response(msgspec.Struct):
    body: _Body


class _Error(msgspec.Struct):
    code: str | None = None


class _Line(msgspec.Struct):
    custom_id: str | None = None
    response: _Response | None = None
    error: _Error | None = None


_body: Final = msgspec.json.Decoder(_Body).decode
_line: Final = msgspec.json.Decoder(_Line).decode


def count_answer(state: State, body: bytes) -> None:
    """Count a line that was answered well, and its tokens."""
    _count(state, _body(body).usage)


def _count(state: State, usage: _Usage | None) -> None:
    state.completed += 1
    if usage is None:
        return
    tokens: Tokens = state.tokens
    tokens.input += usage.prompt_tokens + usage.input_tokens
    tokens.output += usage.completion_tokens + usage.output_tokens
    for details in (usage.prompt_tokens_details, usage.input_tokens_details):
        tokens.cached += 0 if details is None else details.cached_tokens
    for details in (usage.completion_tokens_details, usage.output_tokens_details):
        tokens.reasoning += 0 if details is None else details.reasoning_tokens


class Results:
    """Append result lines to the files of one owner.

    Lines are kept until :meth:`flush`, which blocks and belongs in a thread.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._paths: dict[Kind, Path] = {kind: folder / f"{kind}-{number}.jsonl" for kind in _KINDS}
        self._waiting: dict[Kind, list[bytes]] = {kind: [] for kind in _KINDS}
        self._writing = threading.Lock()

    def add(self, kind: Kind, line: bytes) -> None:
        """Take a line, without its line break."""
        self._waiting[kind].append(line)

    @property
    def waiting(self) -> int:
        """Return how many lines are not written yet."""
        return sum(map(len, self._waiting.values()))

    def flush(self) -> None:
        """Write what was added, after any flush that goes on."""
        with self._writing:
            for kind in _KINDS:
                lines, self._waiting[kind] = self._waiting[kind], []
                if lines:
                    self._append(kind, lines)

    def _append(self, kind: Kind, lines: list[bytes]) -> None:
        path = self._paths[kind]
        with path.open("ab") as file:
            before = file.tell()
            try:
                file.write(b"\n".join((*lines, b"")))
                file.flush()
                os.fsync(file.fileno())
            except BaseException:  # a full disk: leave no half of a line, and try again later
                os.truncate(path, before)
                self._waiting[kind] = lines + self._waiting[kind]
                raise

    def pieces(self, kind: Kind, state: State) -> Iterator[tuple[Path, int]]:
        """Yield the files that hold the lines of one kind, with the bytes of each that count."""
        folder = self._paths[kind].parent
        for name, size in state.adopted.items():
            if name.startswith(f"{kind}-"):
                yield folder / name, size
        if self._paths[kind].exists():
            yield self._paths[kind], self._paths[kind].stat().st_size


def adopt(folder: Path, number: int, state: State) -> set[int]:
    """Take over what earlier owners wrote: count it, and remember how much of each file counts. Blocks.

    What an owner that has lost its lease still writes lies behind that, and is never read.

    Returns:
        The fingerprints of the ``custom_id`` of lines that are done.
    """
    done: set[int] = set()
    state.completed = state.failed = 0
    state.tokens = Tokens()
    for name in sorted(names(folder), key=lambda name: (_number(name), name)):
        if not 0 <= _number(name) < number:
            continue
        limit = state.adopted.get(name)
        size = 0
        with (folder / name).open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") or (limit is not None and size + len(line) > limit):
                    break  # half a line is what a death left
                size += len(line)
                if not len(done) % _TURN:
                    time.sleep(0)  # the event loop wants a turn
                done.add(_adopt(line, state, good=name.startswith("results-")))
        state.adopted[name] = size
    return done


def _adopt(line: bytes, state: State, *, good: bool) -> int:
    """Count a line, and return the fingerprint of its ``custom_id``."""
    read = _line(line)
    if good:
        _count(state, None if read.response is None else read.response.body.usage)
    elif read.error is None or read.error.code not in UNDONE.values():
        state.failed += 1
    return fingerprint(read.custom_id or "")


def _number(name: str) -> int:
    """Return the owner's number of a result file; -1 if it is none."""
    kind, _, rest = name.partition("-")
    digits = rest.removesuffix(".jsonl")
    return int(digits) if kind in _KINDS and digits.isdigit() else -1
