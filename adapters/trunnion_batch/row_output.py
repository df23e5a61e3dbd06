"""Write rows to JSONL or Parquet: into a temporary file that takes the name of the output once it is whole."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from trunnion.errors import ConfigError
from trunnion.pooling import Task

from .leftover import HOST, superseded, sweep
from .places import put_in_place
from .row_input import file_format, import_parquet

MISFIT: Final = "rows_do_not_fit"
"""Code of the error of rows whose values have no common type."""


class RowOutput(ABC):
    """Take rows one by one; ``commit`` makes the output, ``abandon`` keeps what there is as ``OUTPUT.partial``.

    Attributes:
        path: Where the output is, or will be; None for a stream.
        rows: Rows written so far.
        overwrite: Whether ``commit`` may replace a file.
        displaced: The output's own name, where another file had taken it and ``commit`` went beside it.
        leftover: What an earlier run left unfinished under the output's name, and ``commit`` found to hold rows that
            the output has not; else it is removed.
    """

    spools = False
    """Whether what is written before ``commit`` is JSON lines, and the output something else."""

    def __init__(self, path: Path | None, task: Task = "generate") -> None:
        self.path = path
        self.task: Task = task
        self.rows = 0
        self.overwrite = True
        self.displaced: Path | None = None
        self.leftover: Path | None = None
        # Not the process's number alone: on a file system that machines share, two may have the same.
        unique = f"{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.temporary = None if path is None else path.with_name(f".{path.name}.{unique}.tmp")

    @abstractmethod
    def write(self, row: dict[str, Any]) -> None:
        """Take one row."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is buffered and close the file."""

    def flush(self) -> None:  # noqa: B027 - a file need not be flushed for anyone
        """Let a reader of a pipe see the rows so far."""

    def commit(self) -> None:
        """Finish the output and give it its name."""
        self.close()
        if self.temporary is not None:
            self._place(self.temporary)
            assert self.path is not None
            self._clear(self.path)
            sweep(self.displaced or self.path)

    def _clear(self, made: Path) -> None:
        """Remove what an earlier run left unfinished, if ``made`` has its rows; else take note of it."""
        assert self.path is not None
        left = partial_path(self.displaced or self.path, lines=self.spools)
        if not left.is_file():
            return
        parquet = not isinstance(self, JsonlOutput)
        if superseded(left, made, self.task, parquet=parquet):
            with contextlib.suppress(OSError):
                left.unlink()
                return
        self.leftover = left

    def _place(self, made: Path) -> None:
        """Give a file the output's name; if another has it by now, and is not to be replaced, one beside it."""
        assert self.path is not None
        wanted, self.path = self.path, put_in_place(made, self.path, overwrite=self.overwrite)
        if self.path != wanted:
            self.displaced = wanted

    def abandon(self) -> Path | None:
        """Keep the rows written so far beside the output, and return where; None if there are none."""
        with contextlib.suppress(Exception):  # the error that led here is the one to report
            self.close()
        if self.path is None or self.temporary is None or not self.temporary.exists():
            return None
        if not self.rows:
            self.temporary.unlink()
            return None
        kept = partial_path(self.path, lines=self.spools)
        self.temporary.replace(kept)
        return kept


class JsonlOutput(RowOutput):
    """Write JSON lines to a file or a stream."""

    def __init__(self, path: Path | None, stream: TextIO | None = None, task: Task = "generate") -> None:
        super().__init__(path, task)
        if self.temporary is not None:
            stream = self.temporary.open("w", encoding="utf-8")
        assert stream is not None  # one of the two is given
        self._stream = stream

    def write(self, row: dict[str, Any]) -> None:
        """Write one line."""
        try:
            line = _encode(row)
        except ValueError:  # NaN of a Parquet input, or an answer's: JSON has none
            line = _encode(_without_nan(row))
        try:
            self._stream.write(line + "\n")
        except UnicodeEncodeError:  # a lone surrogate of the input
            self._stream.write(json.dumps(json.loads(line)) + "\n")
        self.rows += 1

    def flush(self) -> None:
        """Flush a pipe; a file waits for its buffer."""
        if self.path is None:
            self._stream.flush()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def partial_path(path: Path, *, lines: bool = False) -> Path:
    """Return where the rows of an unfinished output are kept; ``lines``: they are JSON lines, whatever it was to be."""
    return path.with_name(f"{path.stem}.partial.jsonl" if lines else f"{path.name}.partial")


def check_output(
    name: str, *, source: str, overwrite: bool, what: str = "OUTPUT", stdout: bool = True, parquet: bool = True
) -> str:
    """Return the output's format, before an engine spends its start-up time.

    Args:
        name: The output.
        source: The input, which must be another file.
        overwrite: Whether a file that exists may be replaced.
        what: What errors call the output.
        stdout: Whether it may be "-".
        parquet: Whether it may be Parquet.

    Raises:
        ConfigError: The name has an unknown suffix, its folder is missing, or a file would be lost.
    """
    if name == "-" and not stdout:
        raise ConfigError(f"{what} goes to a file, not to stdout (-); name one that ends in .jsonl", param=what)
    if not parquet and not name.lower().endswith((".jsonl", ".ndjson")) and name != "-":
        or_stdout = ", or be - for stdout" if stdout else ""
        raise ConfigError(f"{what} {name}: the name must end in .jsonl{or_stdout}", param=what)
    kind = file_format(name, what)
    if name == "-":
        return kind
    path = Path(name).expanduser()
    why = None
    if path.is_dir():
        why = "is a folder; name a file in it"
    elif not path.absolute().parent.is_dir():
        why = "cannot be written: its folder does not exist"
    elif path.exists() and source != "-" and path.samefile(Path(source).expanduser()):
        why = "is the input; name another file"
    elif path.exists() and not overwrite:
        why = "exists; name another file, or replace it with --overwrite"
    if why is not None:
        raise ConfigError(f"{what} {name} {why}", param=what)
    return kind


def open_output(
    name: str, stream: TextIO | None, input_schema: Any, task: Task = "generate", *, overwrite: bool = False
) -> RowOutput:
    """Open the output by its name, which was checked; ``stream`` is where "-" goes, ``task`` what the columns are of.

    Without ``overwrite``, a file that takes the name before the output is whole is not replaced.

    Raises:
        ConfigError: The file cannot be written.
    """
    if name == "-":
        return JsonlOutput(None, stream)
    path = Path(name).expanduser()
    try:
        made: RowOutput
        if file_format(name, "OUTPUT") == "jsonl":
            made = JsonlOutput(path, task=task)
        else:
            made = _parquet_output(path, input_schema, task)
    except OSError as error:
        raise ConfigError(f"OUTPUT {name} cannot be written: {error.strerror}", param="OUTPUT") from error
    made.overwrite = overwrite
    return made


def _parquet_output(path: Path, input_schema: Any, task: Task) -> RowOutput:
    import_parquet()  # which says what to install
    from .parquet_output import ParquetOutput, SpooledParquetOutput

    return SpooledParquetOutput(path, task) if input_schema is None else ParquetOutput(path, input_schema, task)


def _without_nan(value: Any) -> Any:
    """Return a value with null where a number is none, or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return value


def _json_value(value: Any) -> Any:
    """Return what Parquet can hold and JSON cannot: bytes as base64, times as ISO 8601, others as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if callable(isoformat) else str(value)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_json_value).encode
