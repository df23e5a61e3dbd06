"""Append records to files of a folder, and read back what is whole of them.

A record is a key and a payload behind their lengths and a checksum. Whoever was killed while it wrote one leaves a
piece at the end of its own segment; readers stop there, and nobody ever writes behind it. Where a disk damaged a
record, they stop as well, and say how many bytes they leave out: the lengths that lead further cannot be trusted.
"""

from __future__ import annotations

import logging
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from trunnion.errors import ConfigError
from trunnion_batch.keys import KEY_BYTES

logger = logging.getLogger("trunnion.batch")

MAGIC: Final = b"TRNJ1\n"
SUFFIX: Final = ".rows"
_HEAD: Final = struct.Struct(f"<II{KEY_BYTES}s")


class Place(NamedTuple):
    """Say where the payload of a record lies."""

    key: bytes
    offset: int
    length: int


def record(key: bytes, payload: bytes) -> bytes:
    """Return the bytes of one record."""
    return _HEAD.pack(len(payload), zlib.crc32(payload, zlib.crc32(key)), key) + payload


def places(file: BinaryIO) -> Iterator[Place]:
    """Yield the records of a segment, in the order they were written, as far as they are whole; tell what is not."""
    offset = 0
    for place in _whole(file):
        offset = place.offset + place.length
        yield place
    size = os.fstat(file.fileno()).st_size
    if size > max(offset, len(MAGIC)):
        logger.warning(
            "%s: %d of its %d bytes, from byte %d on, are damaged or were cut off; rows whose answers were there are "
            "asked again",
            file.name,
            size - offset,
            size,
            offset,
        )


def _whole(file: BinaryIO) -> Iterator[Place]:
    if file.read(len(MAGIC)) != MAGIC:
        return
    offset = len(MAGIC)
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum, key = _HEAD.unpack(head)
        payload = file.read(length)
        if len(payload) != length or zlib.crc32(payload, zlib.crc32(key)) != checksum:
            return
        yield Place(key, offset + _HEAD.size, length)
        offset += _HEAD.size + length


def segment_name() -> str:
    """Return a name that no other writer takes; it sorts behind those made before."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{SUFFIX}"


class Writer(Protocol):
    """Append records to a segment of its own."""

    def write(self, data: bytes) -> None:
        """Take a record."""
        ...

    def flush(self) -> None:
        """Bring what was taken to where it is safe."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class LocalWriter:
    """Write each record at once: what the operating system took survives the death of this process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / segment_name()
        self._file: int | None = None
        self._dirty = False

    def write(self, data: bytes) -> None:
        """Append a record. Raises :class:`ConfigError` when the disk is full or gone."""
        try:
            if self._file is None:  # no segment without a record
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
                data = MAGIC + data
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise ConfigError(
                f"the journal {self._path} cannot be written: {error.strerror}", param="journal"
            ) from error
        self._dirty = True

    def flush(self) -> None:
        """Have it written to the disk, so that it survives the machine as well. Blocks."""
        if self._file is not None and self._dirty:
            self._dirty = False
            os.fsync(self._file)

    def close(self) -> None:
        """Flush and close."""
        if self._file is not None:
            self.flush()
            os.close(self._file)
            self._file = None
