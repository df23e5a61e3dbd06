"""Know what earlier runs left of an output: whether it holds anything that the finished one does not, or is a ruin."""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trunnion.pooling import Task
from trunnion.row_tasks import TASK_COLUMNS

from .row_input import import_parquet

HOST: Final = re.sub(r"[^\w.]", "_", platform.node())
"""This machine, in the names of temporary files: their process's number means nothing elsewhere."""


def sweep(output: Path) -> None:
    """Remove the temporary files of runs into an output that were killed on this machine."""
    for begun in output.parent.glob(f".{glob.escape(output.name)}.{HOST}-*.tmp"):
        number = begun.name.removeprefix(f".{output.name}.{HOST}-").partition("-")[0]
        with contextlib.suppress(OSError, ValueError):
            try:
                os.kill(int(number), 0)
            except ProcessLookupError:
                begun.unlink()


def superseded(partial: Path, output: Path, task: Task, *, parquet: bool) -> bool:
    """Tell whether every row of ``partial`` is in ``output``, at the same place.

    A row that failed then may be answered now; everything else must be the same. False where they cannot be read.

    Args:
        partial: The rows of the earlier run.
        output: Those of the finished one.
        task: What their columns are of.
        parquet: Whether both are Parquet, and not lines of JSON.
    """
    read = _parquet_rows if parquet else _lines
    answers = frozenset(TASK_COLUMNS[task])
    try:
        pairs = itertools.zip_longest(read(partial), itertools.chain(read(output), itertools.repeat(None)))
        for before, after in itertools.takewhile(lambda pair: pair[0] is not None, pairs):
            if before != after and not (after is not None and _answered_since(_row(before), _row(after), answers)):
                return False
    except Exception:  # noqa: BLE001 - damaged, or no output of ours: then it stays
        return False
    return True


def _answered_since(before: dict[str, Any], after: dict[str, Any], answers: frozenset[str]) -> bool:
    if not before.get("error"):
        return False
    first, second = ({name: row[name] for name in row if name not in answers} for row in (before, after))
    return first == second


def _row(value: Any) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(value) if isinstance(value, bytes) else value
    return row


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    with import_parquet().ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()
