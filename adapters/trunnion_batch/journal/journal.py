"""Keep a journal: a folder, local or in an object store, that holds the answer of every row that was finished."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trunnion.errors import ConfigError
from trunnion.row_tasks import RowAnswer

from .answers import is_readable, pack, unpack
from .index import Index
from .remote import RemoteWriter, cache_folder, download, open_folder
from .segments import SUFFIX, LocalWriter, Writer, record


@dataclass(slots=True, kw_only=True)
class JournalStats:
    """Count what a run did with its journal.

    Attributes:
        found: Answers of earlier runs.
        replayed: Of these, taken for rows of this run.
        recorded: Answers of this run that were written.
        bytes: What these take.
    """

    found: int = 0
    replayed: int = 0
    recorded: int = 0
    bytes: int = 0


class Journal:
    """Give back the answers of an earlier run, each of them once, and take those of this run.

    An answer belongs to a key (see :class:`~trunnion_batch.keys.RequestKeys`); of equal keys each has as many answers
    as it had rows, so that rows that are alike stay distinct. Not thread-safe, except for :meth:`flush`.
    """

    def __init__(self, uri: str, *, share: bool = False, readable: Callable[[bytes], bool] = is_readable) -> None:
        """Open or make a journal, and read what is in it. Blocks.

        Args:
            uri: A folder: a path or ``file://``, or a URI of any file system that fsspec knows.
            share: Whether it is a cache: an answer is given to every row of its key, and never used up.
            readable: Tells whether an answer can be used; those that cannot are passed over.

        Raises:
            ConfigError: It cannot be opened, or another job is writing to it.
        """
        self.uri = uri
        self.stats = JournalStats()
        self._share = share
        self._readable = readable
        self._lock: int | None = None
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        path = local_path(uri)
        if path is None:
            fs, folder = open_folder(uri)
            self._copies = cache_folder()
            download(fs, folder, Path(self._copies.name))
            self._writer: Writer = RemoteWriter(fs, folder)
            found = Path(self._copies.name)
        else:
            self._lock = _locked(path)
            self._writer = LocalWriter(path)
            found = path
        self._index = Index(sorted(found.glob(f"*{SUFFIX}")))
        self.stats.found = self._index.left

    @property
    def exhausted(self) -> bool:
        """Tell whether there is no answer left that a row could take."""
        return not self._index.left and not self._share

    def take(self, key: bytes) -> RowAnswer | None:
        """Return the next answer of a key, or None if its row must be asked."""
        data = self.take_packed(key)
        return None if data is None else unpack(data)

    def take_packed(self, key: bytes) -> bytes | None:
        """Do as :meth:`take`, and leave the answer as it was written."""
        data = self._index.look(key) if self._share else self._index.take(key)
        if data is None or not self._readable(data):
            return None
        self.stats.replayed += 1
        return data

    def add(self, key: bytes, answer: RowAnswer) -> None:
        """Write the answer of a row. Raises :class:`ConfigError` if it cannot be written."""
        self.add_packed(key, pack(answer))

    def add_packed(self, key: bytes, payload: bytes) -> None:
        """Do as :meth:`add` with what :func:`~.answers.pack` returned."""
        data = record(key, payload)
        self._writer.write(data)
        self.stats.recorded += 1
        self.stats.bytes += len(data)
        if self._share:
            self._index.put(key, payload)

    def flush(self) -> None:
        """Bring everything to disk, or to the store. Blocks; may be called from another thread."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and let go. Idempotent."""
        try:
            self._writer.close()
        finally:
            self._index.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            if self._copies is not None:
                self._copies.cleanup()
                self._copies = None


def local_path(uri: str) -> Path | None:
    """Return the path of a local journal, None for one of an object store."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri).expanduser()


def absolute(uri: str) -> str:
    """Return a URI that means the same in another process, whose working directory is another one."""
    path = local_path(uri)
    return uri if path is None else str(path.absolute())


def _locked(folder: Path) -> int | None:
    """Make the folder, and hold it against other jobs, as long as this process lives."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"the journal {folder} cannot be opened: {error.strerror}", param="journal") from error
    try:
        import fcntl
    except ImportError:  # not on Windows: two jobs then do the same work twice, and no harm
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConfigError(
            f"the journal {folder} is in use by another job; wait for its end, or name another folder", param="journal"
        ) from error
    except OSError:
        with contextlib.suppress(OSError):
            os.close(lock)
        return None
    return lock


__all__ = ["Journal", "JournalStats", "absolute", "local_path"]
