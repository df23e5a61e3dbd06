"""Find finished answers by key, in a database on disk: memory stays the same for a million rows."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from .segments import Place, places


class Index:
    """Hold where each answer of earlier runs lies, oldest first. Belongs to one thread at a time."""

    def __init__(self, segments: Iterable[Path]) -> None:
        """Read the segments through once. Blocks."""
        self._files: list[int] = []
        # Without a name it is SQLite's own temporary file, which goes with this process however that ends.
        self._data = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -32768"):
            self._data.execute(f"PRAGMA {pragma}")
        self._data.execute("CREATE TABLE answers (key BLOB, segment INTEGER, start INTEGER, length INTEGER)")
        self._data.execute("CREATE TABLE fresh (key BLOB PRIMARY KEY, payload BLOB) WITHOUT ROWID")
        self._data.execute("BEGIN")
        self.left = 0
        for path in segments:
            self.left += self._load(path)
        self._data.execute("CREATE INDEX keys ON answers (key)")
        self._data.execute("COMMIT")

    def _load(self, path: Path) -> int:
        number = len(self._files)
        self._files.append(os.open(path, os.O_RDONLY))
        count = 0
        with path.open("rb", buffering=1 << 20) as file:

            def rows() -> Iterable[tuple[bytes, int, int, int]]:
                nonlocal count
                for place in places(file):
                    count += 1
                    yield place.key, number, place.offset, place.length

            self._data.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", rows())
        return count

    def take(self, key: bytes) -> bytes | None:
        """Return the oldest answer of a key that was not taken yet, and take it."""
        if not self.left:
            return None
        found = self._find(key)
        if found is None:
            return None
        self._data.execute("DELETE FROM answers WHERE rowid = ?", (found[0],))
        self.left -= 1
        return self._read(found)

    def look(self, key: bytes) -> bytes | None:
        """Return an answer of a key, and leave it."""
        fresh = self._data.execute("SELECT payload FROM fresh WHERE key = ?", (key,)).fetchone()
        if fresh is not None:
            return bytes(fresh[0])
        found = self._find(key) if self.left else None
        return None if found is None else self._read(found)

    def put(self, key: bytes, payload: bytes) -> None:
        """Have an answer of this run found by :meth:`look`."""
        self._data.execute("INSERT OR REPLACE INTO fresh VALUES (?, ?)", (key, payload))

    def _find(self, key: bytes) -> tuple[int, int, int, int] | None:
        found: tuple[int, int, int, int] | None = self._data.execute(
            "SELECT rowid, segment, start, length FROM answers WHERE key = ? ORDER BY rowid LIMIT 1", (key,)
        ).fetchone()
        return found

    def _read(self, found: tuple[int, int, int, int]) -> bytes:
        return os.pread(self._files[found[1]], found[3], found[2])

    def close(self) -> None:
        """Remove the database."""
        self._data.close()
        for file in self._files:
            os.close(file)
        self._files.clear()
        self.left = 0


__all__ = ["Index", "Place"]
