"""Unpack an archive without letting anything in it out of its folder."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trunnion.errors import InternalError, InvalidArgument, Transient
from trunnion.fetch import FetchJob

from .failures import disk_error, storing
from .folder import check_inside

SUFFIXES: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
_BLOCK: Final = 1 << 20
_CORRUPT: Final = (tarfile.ReadError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


def is_archive(name: str) -> bool:
    """Tell whether a file's name is that of an archive."""
    return name.lower().endswith(SUFFIXES)


def unpack(job: FetchJob, archive: Path, target: Path) -> Path:
    """Unpack into ``target``, made anew, and return the model's folder: the only one at the top, or ``target``.

    Raises:
        InvalidArgument: Something in it leads out of the folder.
        Transient: It is corrupt; it is removed, so that the next attempt fetches it again.
    """
    with storing(job):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    total = archive.stat().st_size
    try:
        members = _zip(job, archive, target) if archive.name.lower().endswith(".zip") else _tar(job, archive, target)
        for name, done in members:
            job.report("unpacking", done, total, name)
    except (OSError, *_CORRUPT) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise disk_error(job, error) from error
        archive.unlink()
        message = f"{archive.name} of {job.shown} is no sound archive: {error}; it was thrown away"
        raise Transient(message, param="model") from error
    entries = list(target.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else target


def _tar(job: FetchJob, archive: Path, target: Path) -> Iterator[tuple[str, int]]:
    if not hasattr(tarfile, "data_filter"):
        raise InternalError("unpacking an archive safely needs Python 3.11.4 or later")
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            check_inside(member.name, job.shown)
            try:
                with storing(job):
                    tar.extract(member, target, filter="data")
            except tarfile.FilterError as error:
                message = f"{job.shown} holds {member.name!r}, which is refused: {error}"
                raise InvalidArgument(message, param="model") from error
            yield member.name, raw.tell()
        # A header that cannot be read ends the list as the real end does: the compressed stream knows better.
        while tar.fileobj is not None and tar.fileobj.read(_BLOCK):
            job.touch()


def _zip(job: FetchJob, archive: Path, target: Path) -> Iterator[tuple[str, int]]:
    done = 0
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            check_inside(member.filename, job.shown)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                message = f"{job.shown} holds {member.filename!r}, which is neither file nor folder; refused"
                raise InvalidArgument(message, param="model")
            place = target / member.filename
            with storing(job):
                (place if member.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_dir():
                with opened.open(member) as content:
                    _copy(job, content, place)
            done += member.compress_size
            yield member.filename, done


def _copy(job: FetchJob, content: object, place: Path) -> None:
    with storing(job):
        out = place.open("wb")
    with out:
        while block := content.read(_BLOCK):  # type: ignore[attr-defined]
            job.touch()
            with storing(job):
                out.write(block)
