"""Read a batch file line by line, and write result files that appear whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from trunnion.errors import ConfigError
from trunnion_batch.places import put_in_place
from trunnion_batch.row_input import check_encoding, count_lines

_BLOCK: Final = 1 << 18


def open_input(source: str) -> tuple[int, int | None]:
    """Open a batch file, or take stdin for "-"; returns the descriptor, and how many lines there are.

    Raises:
        ConfigError: The file is missing, is a folder, or is no UTF-8.
    """
    if source == "-":
        return 0, None
    path = Path(source).expanduser()
    if not path.is_file():
        raise ConfigError(f"--input {source} {'is a folder' if path.is_dir() else 'does not exist'}", param="--input")
    descriptor = os.open(path, os.O_RDONLY)
    check_encoding(descriptor, source, "--input")
    return descriptor, count_lines(path)


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
    """Write lines to ``NAME.partial``, where they can be read meanwhile; ``commit`` gives the file its name.

    ``displaced`` is that name, where another file had taken it meanwhile: the lines are then beside it, in ``path``.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Begin anew; ``overwrite``: a file that has the name in the end is replaced.

        Raises:
            ConfigError: It cannot be written, or another run is writing it.
        """
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self.lines = 0
        self.displaced: Path | None = None
        self._overwrite = overwrite
        try:
            self._file: BinaryIO = self.partial.open("ab", buffering=1 << 16)
        except OSError as error:
            raise ConfigError(f"{self.partial} cannot be written: {error.strerror}", param="output") from error
        if not _alone(self._file, self.partial):
            self._file.close()
            message = f"{self.partial} is being written by another run; wait for its end, or name another file"
            raise ConfigError(message, param="output")
        self._file.truncate(0)

    def write(self, line: bytes) -> None:
        """Write one line."""
        self._file.write(line + b"\n")
        self.lines += 1

    def flush(self) -> None:
        """Let others see what was written."""
        self._file.flush()

    def commit(self) -> None:
        """Give the file its name and close it; nobody who opened it meanwhile may take it for a part of theirs."""
        self._file.flush()
        wanted, self.path = self.path, put_in_place(self.partial, self.path, overwrite=self._overwrite)
        self.displaced = wanted if self.path != wanted else None
        self._file.close()

    def abandon(self) -> Path | None:
        """Close the file and return where its lines are; None, and no file, if there are none."""
        with self._file:
            if self.lines:
                return self.partial
            self.partial.unlink(missing_ok=True)
        return None


def _alone(file: BinaryIO, path: Path) -> bool:
    """Hold an open file against other runs, as long as it is open; False if one has it, or gave it its name by now."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


class LineStream:
    """Write lines to a stream that is open already."""

    def __init__(self, stream: BinaryIO) -> None:
        """Take the stream."""
        self.path: Path | None = None
        self.displaced: Path | None = None
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
