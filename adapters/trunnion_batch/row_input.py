"""Read rows from JSONL or Parquet in chunks, on a thread of its own, so that neither memory nor the loop fills up."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trunnion.errors import ConfigError, InvalidArgument

from .read_ahead import read_ahead

_WIDE: Final = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{")
"""How text in UTF-16 begins, and UTF-32 with it."""
_BLOCK: Final = 1 << 16
_PARQUET_ROWS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRow:
    """Hold one row, and the error of a line that is none; ``number`` is its line, or its row in Parquet, from 1."""

    row: dict[str, Any]
    error: InvalidArgument | None = None
    number: int = 0


def file_format(name: str, what: str) -> str:
    """Return "jsonl" or "parquet" by the suffix; "-" is JSONL. Raises :class:`ConfigError` for any other."""
    suffix = Path(name).suffix.lower()
    if name == "-" or suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix in (".parquet", ".pq"):
        return "parquet"
    raise ConfigError(f"{what} {name}: the name must end in .jsonl or .parquet, or be - for JSONL", param=what)


def check_encoding(descriptor: int, name: str, what: str) -> None:
    """Raise :class:`ConfigError` if an open file of lines begins as UTF-16 or UTF-32 does; ``what`` names it."""
    if os.pread(descriptor, 2, 0) in _WIDE:
        message = f"{what} {name} is not UTF-8 but UTF-16 or UTF-32: iconv -f UTF-16 -t UTF-8 makes it that"
        raise ConfigError(message, param=what)


def import_parquet() -> Any:
    """Return pyarrow.parquet. Raises :class:`ConfigError` that says what to install."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install pyarrow, or use .jsonl") from error
    return parquet


class RowInput:
    """Read one input. Opened at once, so that a missing file is reported before an engine starts.

    Raises:
        ConfigError: The file is missing, is a folder or is not what its name says.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.format = file_format(name, "INPUT")
        self.total: int | None = None
        self.schema: Any = None
        self._parquet: Any = None
        self._descriptor = 0
        path = Path(name).expanduser()
        if name != "-" and not path.is_file():
            why = "is a folder; name one file" if path.is_dir() else "does not exist"
            raise ConfigError(f"INPUT {name} {why}", param="INPUT")
        if self.format == "parquet":
            self._open_parquet(path)
        elif name != "-":
            self._descriptor = os.open(path, os.O_RDONLY)
            check_encoding(self._descriptor, name, "INPUT")
            self.total = count_lines(path)

    def _open_parquet(self, path: Path) -> None:
        parquet = import_parquet()
        try:
            self._parquet = parquet.ParquetFile(path)
        except Exception as error:
            raise ConfigError(f"INPUT {self.name} is not a Parquet file: {error}", param="INPUT") from error
        self.total = self._parquet.metadata.num_rows
        self.schema = self._parquet.schema_arrow

    def read(self) -> Iterator[list[InputRow]]:
        """Yield chunks of rows; of a pipe, each chunk is what has arrived. Blocks."""
        number = 0
        if self._parquet is not None:
            for batch in self._parquet.iter_batches(batch_size=_PARQUET_ROWS):
                yield [InputRow(row=row, number=number + index) for index, row in enumerate(batch.to_pylist(), 1)]
                number += batch.num_rows
            return
        rest = b""
        while data := os.read(self._descriptor, _BLOCK):  # not through sys.stdin: its lock would block the exit
            *lines, rest = (rest + data).split(b"\n")
            chunk = [parse_line(line, number + index) for index, line in enumerate(lines, 1) if line.strip()]
            number += len(lines)
            if chunk:
                yield chunk
        if rest.strip():
            yield [parse_line(rest, number + 1)]

    def numbers(self) -> Iterator[int]:
        """Yield the number of each row: its line in a file of lines, of which empty ones are no rows."""
        if self._parquet is not None:
            yield from range(1, self.count() + 1)
            return
        with Path(self.name).expanduser().open("rb") as file:
            yield from (number for number, line in enumerate(file, 1) if line.strip())

    def count(self) -> int:
        """Count the rows of a file, reading it once more where it does not say."""
        if self._parquet is not None:
            return int(self._parquet.metadata.num_rows)
        with Path(self.name).expanduser().open("rb") as file:
            return sum(1 for line in file if line.strip())

    def chunks(self) -> AsyncIterator[list[InputRow]]:
        """Yield chunks from a reader thread that stays a few chunks ahead. Raises what reading raised."""
        return read_ahead(self.read())


def count_lines(path: Path) -> int:
    """Return the number of lines, a last one without a line break included."""
    with path.open("rb") as file:
        last = b"\n"
        count = 0
        while data := file.read(1 << 20):
            count += data.count(b"\n")
            last = data
    return count + (not last.endswith(b"\n"))


def _no_value(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON; null is")


_decode = json.JSONDecoder(parse_constant=_no_value).decode


def parse_line(line: bytes, number: int) -> InputRow:
    """Return the row of a JSON line; one that is no row comes with its error."""
    try:
        row = _decode(line.decode("utf-8-sig"))
    except ValueError as error:
        return _bad(line, number, f"line {number} is not valid JSON: {error}")
    if not isinstance(row, dict):
        message = f"line {number} must be a JSON object with the row's columns, not {type(row).__name__}"
        return _bad(line, number, message)
    return InputRow(row=row, number=number)


def _bad(line: bytes, number: int, message: str) -> InputRow:
    """Keep the line in a column of its own, so that the row is not lost."""
    text = line.decode("utf-8", "replace")
    return InputRow(row={"input_line": text}, error=InvalidArgument(message, param="input_line"), number=number)
