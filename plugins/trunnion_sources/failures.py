"""Map what the disk, a store or a server fails with onto the one error tree."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from trunnion.errors import ConfigError, InternalError, TrunnionError
from trunnion.fetch import FetchJob

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


class UnreachableError(Exception):
    """Say that a store or server could not be asked just now; kept inside this plugin."""


def disk_error(job: FetchJob, error: OSError, where: object = None) -> TrunnionError:
    """Return the typed error for a failure of this node's disk."""
    place = where or error.filename or job.settings.cache
    if error.errno in _FULL:
        return storage_full(job, str(place))
    if error.errno in _DENIED:
        message = (
            f"{place} cannot be written for {job.shown}: {error.strerror}; set TRUNNION_CACHE to a folder that can"
        )
        return ConfigError(message, param="TRUNNION_CACHE")
    return InternalError(f"{job.shown} cannot be kept in {place}: {error}", param="model")


def storage_full(job: FetchJob, place: str, need: str = "") -> TrunnionError:
    """Return the error for a disk without room; ``need`` says how much is missing, if that is known."""
    message = f"no space left in {place} for {job.shown}{need}; free some, or set TRUNNION_CACHE (for the Hub: "
    message += "HF_HOME) to a folder on a larger disk. What was fetched is kept, and the next attempt goes on from it"
    return InternalError(message, param="TRUNNION_CACHE", code="insufficient_storage", http_status=507)


@contextmanager
def storing(job: FetchJob) -> Iterator[None]:
    """Raise what the disk fails with inside the block as typed errors; an OSError without a number is not its own."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise disk_error(job, error) from error


def refuse_revision(job: FetchJob) -> None:
    """Refuse a revision where there are none. Raises :class:`ConfigError`."""
    if job.revision is not None:
        message = f"revision {job.revision!r} is for models on the Hub; {job.shown} has none, so leave it out"
        raise ConfigError(message, param="revision")
