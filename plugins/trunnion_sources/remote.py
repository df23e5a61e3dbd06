"""Describe a file that lies elsewhere, and how to read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """Hold what a file's bytes must hash to; ``digest`` is hexadecimal."""

    algorithm: Literal["sha256", "md5"]
    digest: str

    def new(self) -> Any:
        """Return a fresh hash object."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


Read = Callable[[int], tuple[int, Generator[bytes, None, None]]]
"""Open a file at an offset in bytes; return where it really begins (0 where a server cannot resume) and the chunks,
which are closed by whoever reads them: an answer that is given up must not go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """Describe one file of a model.

    Attributes:
        path: Where it lies in the model, with slashes.
        read: How to read it. A cut or an unreachable server is an exception, or an early end.
        size: Bytes; None where unknown, and then the end of the stream is the end of the file.
        tag: What changes when its content does: an ETag, a time, a digest.
        checksum: What it hashes to; None where the store does not say.
        checksum_holds: Asked when the checksum differs: whether it is one of the content for certain.
    """

    path: str
    read: Read
    size: int | None = None
    tag: str = ""
    checksum: Checksum | None = None
    checksum_holds: Callable[[], bool] = lambda: True
