"""Bring a model's files here and put them in place; what stores and web servers have in common."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trunnion.errors import Transient
from trunnion.fetch import FetchJob

from .archive import is_archive, unpack
from .crew import Crew
from .download import download
from .failures import UnreachableError
from .folder import VersionFolder, latest
from .remote import RemoteFile

logger = logging.getLogger("trunnion.sources")


def listed_or_latest(
    job: FetchJob, ask: Callable[[], Sequence[RemoteFile]], attempts: int
) -> Sequence[RemoteFile] | Path:
    """Return what ``ask`` lists; where the source cannot be asked, the version that was fetched last.

    Raises:
        Transient: It cannot be asked, and nothing was fetched before.
    """
    error: UnreachableError | None = None
    for attempt in range(attempts):
        try:
            return ask()
        except UnreachableError as failure:
            error = failure
            kept = latest(job)
            if kept is not None:
                logger.warning("%s cannot be asked (%s); taking what was fetched before, in %s", job.shown, error, kept)
                return kept
            if attempt + 1 < attempts:
                job.sleep(0.2 * 2**attempt)
    message = f"{job.shown} cannot be reached: {error}; nothing of it was fetched before"
    raise Transient(message, param="model") from error


def bring(job: FetchJob, files: Sequence[RemoteFile], *, workers: int, attempts: int) -> Path:
    """Return the folder of these files, fetching what is missing; a single archive is unpacked.

    Raises:
        TrunnionError: What the source or the disk failed with. What is there stays for the next attempt.
    """
    folder = VersionFolder(job, files)
    if ready := folder.ready():
        logger.debug("%s is in %s", job.shown, ready)
        return ready
    began = time.monotonic()
    done = folder.open()
    sizes = [file.size for file in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    logger.info("fetching %s: %s bytes in %d files, %d there already", job.shown, total or "unknown", len(files), done)
    crew = Crew(job, workers=workers, done=done, total=total)
    largest_first = sorted(files, key=lambda file: -(file.size or 0))
    crew.run(largest_first, lambda file: download(crew, file, folder.partial / file.path, attempts=attempts))
    if len(files) == 1 and is_archive(files[0].path):
        unpacking = folder.partial.with_suffix(".unpacking")
        made = folder.settle(unpack(job, folder.partial / files[0].path, unpacking))
        shutil.rmtree(unpacking, ignore_errors=True)
    else:
        made = folder.settle()
    logger.info("fetched %s in %.1f s", job.shown, time.monotonic() - began)
    return made
