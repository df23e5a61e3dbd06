"""Let one process of this node at a time hold a file's lock. A dead process holds none: the kernel lets go for it."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .fetch import FetchJob

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("trunnion.sources")
_POLL = 0.1
"""Seconds between looks at a lock that somebody else holds."""


@contextmanager
def node_lock(job: FetchJob, file: Path) -> Iterator[None]:
    """Hold the lock of a file for the length of the block; reports "waiting" while another process has it.

    Where the cache cannot be written, or the platform has no such locks, the block runs without: what lies ready
    there can still be used, and what must be written fails with an error of its own.

    Raises:
        TrunnionError: The job was given up meanwhile.
    """
    descriptor = _open(job, file)
    if descriptor is None:
        yield
        return
    try:
        waiting = False
        while not _try(descriptor):
            if not waiting:
                waiting = True
                logger.info("another process on this node is fetching %s; waiting for it", job.shown)
            job.report("waiting")
            job.sleep(_POLL)
        if waiting:
            job.report("fetching")
        yield
    finally:
        os.close(descriptor)  # which lets go of the lock


def _open(job: FetchJob, file: Path) -> int | None:
    if fcntl is None:
        return None  # type: ignore[unreachable]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        logger.debug("no lock for %s: %s", job.shown, error)
        return None


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a filesystem without locks
            return True
        raise
    return True
