"""Bring one file here: resumed where it was cut, counted, and checked before it gets its name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from trunnion.errors import Transient, TrunnionError

from .crew import Crew
from .failures import UnreachableError, storing
from .remote import RemoteFile

logger = logging.getLogger("trunnion.sources")
PART: Final = ".part"
_BACKOFF: Final = 0.2
_LONGEST_BACKOFF: Final = 10.0
_BLOCK: Final = 1 << 20


def download(crew: Crew, file: RemoteFile, target: Path, *, attempts: int) -> None:
    """Write the file to ``target``, going on from what an earlier attempt left in ``target.part``.

    Raises:
        Transient: ``attempts`` in a row brought nothing, or the content is not what its checksum says, twice.
        TrunnionError: What the source or the disk failed with.
    """
    if target.exists():
        return
    part = target.with_name(target.name + PART)
    for last in (False, True):
        digest = _transfer(crew, file, part, attempts)
        if digest is None or file.checksum is None or digest == file.checksum.digest or not file.checksum_holds():
            break
        with storing(crew.job):
            crew.count(-part.stat().st_size, file.path)
            part.unlink()
        message = f"{file.path} of {crew.job.shown} is corrupt: its {file.checksum.algorithm} is {digest}, "
        message += f"and should be {file.checksum.digest}"
        if last:
            raise Transient(f"{message}. It was fetched twice and thrown away; is the original sound?", param="model")
        logger.warning("%s; fetching it again", message)
    with storing(crew.job):
        part.rename(target)


def _transfer(crew: Crew, file: RemoteFile, part: Path, attempts: int) -> str | None:
    """Fill the partial file up to its whole size; return the digest of its content, None where none is asked for."""
    hasher, failures, furthest = _hasher(crew, file, part), 0, 0
    with storing(crew.job):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    while True:
        have = part.stat().st_size
        furthest = max(furthest, have)
        if file.size is not None and have >= file.size:
            if have == file.size:
                return hasher.hexdigest() if hasher else None
            _truncate(crew, file, part, have)  # it cannot be the beginning of this file
            have, hasher = 0, _hasher(crew, file, part)
        why: Exception | None = None
        whole = False
        try:
            begin, chunks = file.read(have)
            with closing(chunks), _appending(crew, file, part, begin, have) as out:
                if begin != have:
                    hasher = _hasher(crew, file, part)  # of nothing, now
                for chunk in chunks:
                    crew.check()
                    with storing(crew.job):
                        out.write(chunk)
                        out.flush()
                    if hasher:
                        hasher.update(chunk)
                    crew.count(len(chunk), file.path)
            whole = file.size is None
        except TrunnionError:
            raise
        except (UnreachableError, OSError) as error:
            why = error
        now = part.stat().st_size
        if whole:
            return hasher.hexdigest() if hasher else None
        if file.size is not None and now >= file.size:
            continue
        # Not by how much came: a server that begins anew each time sends much, and gets nowhere.
        failures = 0 if now > furthest else failures + 1
        furthest = max(furthest, now)
        if failures >= attempts:
            raise _no_more(crew, file, now, why) from why
        logger.info("%s of %s was cut at byte %d (%s); going on", file.path, crew.job.shown, now, why or "early end")
        crew.check()
        crew.job.sleep(min(_BACKOFF * 2**failures, _LONGEST_BACKOFF))


@contextmanager
def _appending(crew: Crew, file: RemoteFile, part: Path, begin: int, have: int) -> Iterator[BinaryIO]:
    """Open the partial file for what begins at a byte: its end, or 0 where the answer is the whole file."""
    if begin != have:
        _truncate(crew, file, part, have)
    with storing(crew.job):
        out = part.open("ab")
    with out:
        yield out


def _no_more(crew: Crew, file: RemoteFile, now: int, why: Exception | None) -> Transient:
    of = "" if file.size is None else f" of {file.size}"
    reason = f"{why}" if why else "the answer ends there"
    return Transient(
        f"{file.path} of {crew.job.shown} cannot be read beyond byte {now}{of}: {reason}; "
        "what is there is kept, and the next attempt goes on from it",
        param="model",
    )


def _truncate(crew: Crew, file: RemoteFile, part: Path, have: int) -> None:
    with storing(crew.job), part.open("wb"):
        crew.count(-have, file.path)


def _hasher(crew: Crew, file: RemoteFile, part: Path) -> Any:
    """Return a hash object that has seen what is there already; None without a checksum."""
    if file.checksum is None:
        return None
    hasher = file.checksum.new()
    if part.exists():
        with part.open("rb") as content:
            while block := content.read(_BLOCK):
                crew.job.touch()
                hasher.update(block)
    return hasher
