"""Read a batch file line by line, and write result files that appear whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from trunnion.errors import ConfigError

_BLOCK: Final = 1 << 18


def read_lines(descriptor: int) -> Iterator[list[tuple[int, bytes]]]:
    """Yield lines with their numbers from 1; of a pipe, as they arrive. Empty lines are left out. Blocks."""
    number = 0
    rest = b""
    while data := os.read(descriptor, _BLOCK):
        *lines, rest = (rest + data).split(b"\n")
        chunk = [(number + index, line) for index, line in enumerate(lines, 1) if line.strip()]
        number += len(lines)
        if chunk:
            yield chunk
    if rest.strip():
        yield [(number + 1, rest)]


class LineFile:
    """Write lines to ``NAME.partial``, where they can be read meanwhile; ``commit`` gives the file its name."""

    def __init__(self, path: Path) -> None:
        """Begin anew. Raises :class:`ConfigError` if that cannot be."""
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self.lines = 0
        try:
            self._file: BinaryIO = self.partial.open("wb", buffering=1 << 16)
        except OSError as error:
            raise ConfigError(f"{self.partial} cannot be written: {error.strerror}", param="output") from error

    def write(self, line: bytes) -> None:
        """Write one line."""
        self._file.write(line + b"\n")
        self.lines += 1

    def flush(self) -> None:
        """Let others see what was written."""
        self._file.flush()

    def commit(self) -> None:
        """Close the file and give it its name."""
        self._file.close()
        self.partial.replace(self.path)

    def abandon(self) -> Path | None:
        """Close the file and return where its lines are; None, and no file, if there are none."""
        self._file.close()
        if self.lines:
            return self.partial
        self.partial.unlink(missing_ok=True)
        return None


class LineStream:
    """Write lines to a stream that is open already."""

    def __init__(self, stream: BinaryIO) -> None:
        """Take the stream."""
        self.path: Path | None = None
        self.lines = 0
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write one line, for whoever waits for it."""
        self._stream.write(line + b"\n")
        self._stream.flush()
        self.lines += 1

    def flush(self) -> None:
        """Let a reader see what was written."""
        self._stream.flush()

    def commit(self) -> None:
        """Flush."""
        self.flush()

    def abandon(self) -> Path | None:
        """Flush; nothing is kept."""
        with contextlib.suppress(OSError):
            self.flush()
        return None
