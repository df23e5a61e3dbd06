"""Keep a journal in an object store through fsspec: whole segments of what was taken since the last one."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any, Final

from trunnion.errors import ConfigError

from .segments import MAGIC, SUFFIX, segment_name

_MOST_BYTES: Final = 8 << 20


def open_folder(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the folder in it.

    Raises:
        ConfigError: The package for this scheme is not installed, or the place cannot be reached.
    """
    try:
        import fsspec
    except ImportError as error:
        raise ConfigError("a journal in an object store needs fsspec: pip install fsspec", param="journal") from error
    try:
        fs, folder = fsspec.core.url_to_fs(uri)
        fs.makedirs(folder, exist_ok=True)
    except ImportError as error:
        raise ConfigError(f"the journal {uri} needs another package: {error}", param="journal") from error
    except Exception as error:
        raise ConfigError(f"the journal {uri} cannot be opened: {error}", param="journal") from error
    return fs, folder.rstrip("/")


def download(fs: Any, folder: str, target: Path) -> None:
    """Copy all segments of a remote folder."""
    for name in sorted(fs.ls(folder, detail=False, refresh=True)):
        if str(name).endswith(SUFFIX):
            fs.get_file(name, str(target / Path(str(name)).name))


class RemoteWriter:
    """Gather records and put them as one object, when there are many bytes of them or ``flush`` is called."""

    def __init__(self, fs: Any, folder: str) -> None:
        self._fs, self._folder = fs, folder
        self._lock = threading.Lock()
        self._buffer: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Take a record. Raises :class:`ConfigError` when the store refuses it."""
        with self._lock:  # :meth:`flush` may be taking the buffer away on another thread
            self._buffer.append(data)
            self._bytes += len(data)
        if self._bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put what was taken. Blocks."""
        with self._lock:
            taken, self._buffer, self._bytes = self._buffer, [], 0
        if not taken:
            return
        name = f"{self._folder}/{segment_name()}"
        try:
            self._fs.pipe_file(name, MAGIC + b"".join(taken))
        except Exception as error:
            with self._lock:
                self._buffer = taken + self._buffer
            raise ConfigError(f"the journal {name} cannot be written: {error}", param="journal") from error

    def close(self) -> None:
        """Put what is left."""
        self.flush()


def cache_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for the copies of remote segments; it goes with the object."""
    return tempfile.TemporaryDirectory(prefix="trunnion-journal-")
