"""Check the input of a batch before any of it is run, and say of each line what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from trunnion.errors import ModelNotFound
from trunnion_http.models import ModelDirectory

from .lines import BatchLine, LineError, fingerprint, parse_line
from .state import LineFault

MOST_FAULTS: Final = 100
"""Faults that are told of one batch."""
_CODES: Final = {"invalid_json": "invalid_json_line", "unsupported_url": "url_mismatch"}
"""OpenAI's names for what :mod:`trunnion_http.batches.lines` calls otherwise."""
_FRESH: Final = 1.0
"""Seconds for which what is known of a model's adapters is good enough."""
_BLOCK: Final = 1 << 16


class _Asked(msgspec.Struct):
    """Read of a line's body what is checked."""

    model: Any = None


_asked: Final = msgspec.json.Decoder(_Asked).decode


@dataclass(slots=True)
class Checked:
    """Hold what a look at an input found.

    Attributes:
        total: Its requests.
        faults: What is wrong, the first of them.
        models: The lines, at most so many, that name each model; None where none is named.
    """

    total: int = 0
    faults: list[LineFault] = field(default_factory=list)
    models: dict[str | None, list[int]] = field(default_factory=dict)

    def add(self, fault: LineFault) -> None:
        """Take note of a fault, unless there are too many."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


def numbered_lines(path: Path) -> Iterator[list[tuple[int, bytes]]]:
    """Yield lines in blocks, with their numbers from 1; empty ones are left out. Blocks."""
    number = 0
    with path.open("rb") as file:
        while lines := file.readlines(_BLOCK):
            chunk = [(number + index, line) for index, line in enumerate(lines, 1) if line.strip()]
            number += len(lines)
            if chunk:
                yield chunk
                time.sleep(0)  # whoever reads on holds the interpreter; the event loop beside it wants a turn


def check_input(path: Path, endpoint: str) -> Checked:
    """Look at every line. Blocks."""
    checked = Checked()
    seen: set[int] = set()
    for chunk in numbered_lines(path):
        for number, data in chunk:
            checked.total += 1
            try:
                line = parse_line(data, number, (endpoint,))
                mark = fingerprint(line.custom_id)
                if mark in seen:
                    fault = f"custom_id {line.custom_id!r} was used by a line before; each needs one of its own"
                    raise LineError(number, fault, code="duplicate_custom_id", param="custom_id")  # noqa: TRY301
            except LineError as error:
                checked.add(_told(error))
                continue
            seen.add(mark)
            named = checked.models.setdefault(named_model(line), [])
            if len(named) < MOST_FAULTS:
                named.append(number)
    if not checked.total:
        checked.add(LineFault(code="empty_file", message="the input file has no request", param="input_file_id"))
    return checked


def check_models(checked: Checked, models: ModelDirectory) -> None:
    """Take note of lines whose model is not served here."""
    for name, lines in checked.models.items():
        try:
            models.resolve(name)
        except ModelNotFound as error:
            for line in lines:
                checked.add(LineFault(code=error.code, message=error.message, line=line, param="body.model"))


@runtime_checkable
class Changing(Protocol):
    """Be a model handle that has to ask which adapters there are now."""

    async def look(self, *, within: float = 0.0) -> None:
        """Ask, unless that was done in the last ``within`` seconds."""
        ...


async def look_at_adapters(models: ModelDirectory) -> None:
    """Have models find out which adapters they have: a process that has just started may know of none."""
    for _, handle in models:
        if isinstance(handle, Changing):
            await handle.look(within=_FRESH)


def named_model(line: BatchLine) -> str | None:
    """Return the model that a line names; None if it names none."""
    model = _asked(line.body).model
    return model if isinstance(model, str) else None


def _told(error: LineError) -> LineFault:
    readable = error.fault.encode("utf-8", "replace").decode()
    return LineFault(code=_CODES.get(error.code, error.code), message=readable, line=error.number, param=error.param)
