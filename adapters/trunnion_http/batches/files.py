"""Keep the files of one owner: their bytes, and beside them what is known of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import msgspec

from trunnion.errors import NotFound

from .disk import is_id, names, new_id, write_atomically

PREFIX: Final = "file-"
_STALE_SECONDS: Final = 3600.0
"""Seconds after which an upload that nobody goes on with is removed."""


class FileMeta(msgspec.Struct, kw_only=True, frozen=True):
    """Hold what is known of a file; times are Unix timestamps in seconds."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None = None

    @property
    def expired(self) -> bool:
        """Tell whether the file's time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()

    def public(self) -> dict[str, Any]:
        """Return OpenAI's ``file`` object."""
        told = {"id": self.id, "object": "file", "bytes": self.bytes, "created_at": self.created_at}
        told |= {"filename": self.filename, "purpose": self.purpose, "status": "processed", "status_details": None}
        return {**told, "expires_at": self.expires_at}


_decode: Final = msgspec.json.Decoder(FileMeta).decode
_encode: Final = msgspec.json.Encoder().encode


class FileStore:
    """Keep files under ids of our own making. Everything here blocks; call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> IO[bytes]:
        """Open a new file that nobody sees yet; the caller closes it, then adds or discards it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / f"{secrets.token_hex(16)}.part").open("xb")

    def add(
        self, part: Path, *, filename: str, purpose: str, seconds: float | None, file_id: str | None = None
    ) -> FileMeta:
        """Give a file that was begun its id; it is then there, whole.

        Args:
            part: Where its bytes are.
            filename: What its owner calls it.
            purpose: What it is for.
            seconds: Seconds that it is kept; None for ever.
            file_id: Its id, where that was chosen before.
        """
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        now = int(time.time())
        meta = FileMeta(
            id=file_id or new_id(PREFIX),
            filename=filename,
            purpose=purpose,
            bytes=part.stat().st_size,
            created_at=now,
            expires_at=None if seconds is None else now + int(seconds),
        )
        part.replace(self._bytes(meta.id))
        write_atomically(self._meta(meta.id), _encode(meta))
        return meta

    def add_joined(
        self,
        pieces: Iterable[tuple[Path, int]],
        *,
        filename: str,
        purpose: str,
        seconds: float | None,
        file_id: str,
    ) -> FileMeta | None:
        """Add a file that is the beginnings of others, joined; None, and no file, if it would be empty.

        Args:
            pieces: Paths, and how many bytes of each.
            filename: As in :meth:`add`.
            purpose: As there.
            seconds: As there.
            file_id: As there.
        """
        wanted = [(path, size) for path, size in pieces if size]
        if not wanted:
            return None
        with self.begin() as joined:
            try:
                for path, size in wanted:
                    with path.open("rb") as source:
                        _copy(source, joined, size)
            except BaseException:
                discard(joined)
                raise
        return self.add(Path(joined.name), filename=filename, purpose=purpose, seconds=seconds, file_id=file_id)

    def get(self, file_id: str) -> FileMeta:
        """Return what is known of a file. Raises :class:`NotFound`."""
        with contextlib.suppress(FileNotFoundError):
            if is_id(file_id, PREFIX):
                meta = _decode(self._meta(file_id).read_bytes())
                if not meta.expired:
                    return meta
        raise no_file(file_id)

    def open(self, file_id: str) -> tuple[FileMeta, BinaryIO]:
        """Return a file for reading; it can be read to its end even if it is deleted meanwhile."""
        meta = self.get(file_id)
        try:
            return meta, self._bytes(file_id).open("rb")
        except FileNotFoundError as error:
            raise no_file(file_id) from error

    def link(self, file_id: str, target: Path) -> None:
        """Let a file's bytes have a second name, so that deleting it takes nothing from whoever works on it."""
        self.get(file_id)
        source = self._bytes(file_id)
        try:
            os.link(source, target)
        except FileNotFoundError as error:
            raise no_file(file_id) from error
        except OSError:  # a file system without links
            shutil.copyfile(source, target)

    def delete(self, file_id: str) -> None:
        """Remove a file. Raises :class:`NotFound`."""
        self.get(file_id)
        self._remove(file_id)

    def ids(self) -> list[str]:
        """List the ids of all files, oldest first."""
        found = [name.removesuffix(".json") for name in names(self.folder) if name.endswith(".json")]
        return sorted(one for one in found if is_id(one, PREFIX))

    def sweep(self) -> None:
        """Remove what has expired, and uploads that nobody goes on with."""
        for file_id in self.ids():
            with contextlib.suppress(FileNotFoundError):
                if _decode(self._meta(file_id).read_bytes()).expired:
                    self._remove(file_id)
        known = {f"{one}.bin" for one in self.ids()} | {f"{one}.json" for one in self.ids()}
        for name in set(names(self.folder)) - known:
            path = self.folder / name
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _STALE_SECONDS:
                    path.unlink()

    def _remove(self, file_id: str) -> None:
        self._meta(file_id).unlink(missing_ok=True)  # from here on it is not there
        self._bytes(file_id).unlink(missing_ok=True)

    def _meta(self, file_id: str) -> Path:
        return self.folder / f"{file_id}.json"

    def _bytes(self, file_id: str) -> Path:
        return self.folder / f"{file_id}.bin"


def discard(part: IO[bytes]) -> None:
    """Close and remove a file that was begun."""
    part.close()
    Path(part.name).unlink(missing_ok=True)


def no_file(file_id: str, param: str = "id") -> NotFound:
    """Return the error for a file that is not there, or not this caller's."""
    return NotFound(f"No such File object: {file_id}", param=param)


def _copy(source: BinaryIO, target: IO[bytes], size: int) -> None:
    while size:
        piece = source.read(min(size, 1 << 20))
        if not piece:
            raise OSError(f"{source.name} is shorter than it was")
        target.write(piece)
        size -= len(piece)
