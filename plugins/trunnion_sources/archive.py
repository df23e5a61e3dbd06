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
from typing import IO, Final

from trunnion.errors import InvalidArgument, Transient
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
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            check_inside(member.name, job.shown)
            if hasattr(tarfile, "data_filter"):
                _extract(job, tar, member, target)
            elif member.isfile() or member.isdir():  # Python before 3.11.4, and no links with it
                _write(job, None if member.isdir() else tar.extractfile(member), target / member.name)
            else:
                raise _neither(job, member.name)
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
                raise _neither(job, member.filename)
            _write(job, None if member.is_dir() else opened.open(member), target / member.filename)
            done += member.compress_size
            yield member.filename, done


def _extract(job: FetchJob, tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    try:
        with storing(job):
            tar.extract(member, target, filter="data")
    except tarfile.FilterError as error:
        message = f"{job.shown} holds {member.name!r}, which is refused: {error}"
        raise InvalidArgument(message, param="model") from error


def _write(job: FetchJob, content: IO[bytes] | None, place: Path) -> None:
    """Write a file, or make a folder where there is no content."""
    with storing(job):
        (place if content is None else place.parent).mkdir(parents=True, exist_ok=True)
    if content is None:
        return
    with content:
        with storing(job):
            out = place.open("wb")
        with out:
            while block := content.read(_BLOCK):
                job.touch()
                with storing(job):
                    out.write(block)


def _neither(job: FetchJob, name: str) -> InvalidArgument:
    message = f"{job.shown} holds {name!r}, which is neither file nor folder; refused"
    return InvalidArgument(message, param="model")
