"""Fetch from the Hugging Face Hub into the Hub's own cache, which every other library on the node shares."""

from __future__ import annotations

import glob
import logging
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from trunnion.errors import ConfigError, ModelNotFound, PermissionDenied, Transient, TrunnionError
from trunnion.fetch import FetchJob

from .config import HubConfig
from .failures import disk_error, storage_full
from .hub_blobs import fetch_blobs
from .hub_record import HubRecord, looks_whole
from .remote import Checksum
from .weights import choose

logger = logging.getLogger("trunnion.sources")
_POLL: Final = 0.1
_ASK_SECONDS: Final = 20.0
_LONGEST_ID: Final = 2
_FORBIDDEN: Final = (401, 403)
_BLOCK: Final = 1 << 20
_HOW_OFFLINE: Final = "unset HF_HUB_OFFLINE, fetch it once with a connection, or name a path"


class HubSource:
    """Fetch a repository's files, of one format of the weights."""

    def __init__(self, config: HubConfig) -> None:
        self._config = config

    def fetch(self, job: FetchJob) -> Path:
        """Return the snapshot's folder in the Hub's cache; see :class:`trunnion.fetch.Source`.

        What is there is not fetched again, and a large file goes on where it was cut.
        """
        name, revision = parse(job)
        from . import _hub

        record = HubRecord(job)
        if _hub.offline():
            return self._kept(job, name, revision, record, why="HF_HUB_OFFLINE is set")
        try:
            info = _hub.HfApi().repo_info(name, revision=revision, files_metadata=True, timeout=_ASK_SECONDS)
        except Exception as error:
            failure = _mapped(job, name, revision, error)
            if isinstance(failure, Transient):
                return self._kept(job, name, revision, record, why=failure.message, error=error)
            raise failure from error
        files = {one.rfilename: one for one in info.siblings or ()}
        wanted = {path: files[path] for path in choose(files, self._config)}
        sizes = {path: one.size for path, one in wanted.items()}
        if not wanted:
            raise ModelNotFound(f"{job.shown} has no files that allow and ignore leave over", param="model")
        folder = _hub.storage(name) / "snapshots" / str(info.sha)
        if record.holds(str(info.sha), sizes):
            return folder
        for last in (False, True):
            had = {path for path in wanted if (folder / path).exists()}
            logger.info("fetching %s, %d of %d files are there", job.shown, len(had), len(wanted))
            config = self._config
            fetch_blobs(
                job,
                name,
                str(info.sha),
                wanted,
                storage=_hub.storage(name),
                workers=config.workers,
                verify=config.verify,
            )
            folder = self._download(job, name, revision, folder, sizes)
            wrong = self._wrong(job, folder, {path: one for path, one in wanted.items() if path not in had})
            if not wrong:
                break
            for path in wrong:  # in the cache, the snapshot's file is a link to where the content is
                (folder / path).resolve().unlink(missing_ok=True)
                (folder / path).unlink(missing_ok=True)
            message = f"{', '.join(wrong)} of {job.shown} came corrupt and was thrown away"
            if last:
                raise Transient(f"{message}, twice; try again later", param="model")
            logger.warning("%s; fetching it again", message)
        record.write(folder, str(info.sha), list(wanted))
        return folder

    def _download(
        self, job: FetchJob, name: str, revision: str | None, folder: Path, sizes: dict[str, int | None]
    ) -> Path:
        """Let the Hub's library download, on a thread of its own, and report what arrives."""
        from . import _hub

        result: Future[str] = Future()

        def run() -> None:
            try:
                path = _hub.snapshot_download(
                    name,
                    revision=revision,
                    allow_patterns=[glob.escape(path) for path in sizes],
                    max_workers=self._config.workers,
                    tqdm_class=_hub.stoppable(job),
                )
                result.set_result(path)
            except BaseException as error:  # noqa: BLE001 - raised below
                result.set_exception(error)

        thread = threading.Thread(target=run, name="trunnion-hub", daemon=True)
        thread.start()
        total = None if None in sizes.values() else sum(size or 0 for size in sizes.values())
        began = time.time()
        while thread.is_alive():
            thread.join(_POLL)
            job.report("fetching", _arrived(_hub.storage(name), folder, sizes, began), total)
        try:
            return Path(result.result())
        except TrunnionError:
            raise
        except Exception as error:
            raise _mapped(job, name, revision, error) from error

    def _wrong(self, job: FetchJob, folder: Path, fresh: dict[str, Any]) -> list[str]:
        """Return the files that came but are not what the Hub says they are."""
        wrong = []
        for path, one in fresh.items():
            file = folder / path
            if (
                not file.exists()
                or (one.size is not None and file.stat().st_size != one.size)
                or (self._config.verify and one.lfs is not None and _digest(job, file) != one.lfs["sha256"])
            ):
                wrong.append(path)
        return wrong

    @staticmethod
    def _kept(
        job: FetchJob,
        name: str,
        revision: str | None,
        record: HubRecord,
        *,
        why: str,
        error: Exception | None = None,
    ) -> Path:
        """Return what was fetched before. Raises :class:`ModelNotFound` that says what to do if nothing was."""
        if kept := record.folder():
            logger.info("%s: taking what was fetched before, in %s (%s)", job.shown, kept, why)
            return kept
        from . import _hub

        try:
            folder = Path(_hub.snapshot_download(name, revision=revision, local_files_only=True))
        except _hub.LocalEntryNotFoundError as missing:  # some versions say so of a snapshot without all formats, too
            folder = Path(getattr(missing, "snapshot_path", None) or "")
        except Exception as other:  # a name that no repository has
            raise _mapped(job, name, revision, other) from other
        if folder.name and looks_whole(folder):
            return folder
        there = "only in part" if folder.name else "not"
        message = f"{job.shown} is {there} in the Hub's cache, and {why}"
        if error is not None:
            raise Transient(f"{message}; connect, or name a path", param="model") from error
        raise ModelNotFound(f"{message}; {_HOW_OFFLINE}", param="model")


def parse(job: FetchJob) -> tuple[str, str | None]:
    """Return the repository and the revision that a job names.

    Raises:
        ModelNotFound: It is no name of a repository.
        ConfigError: Reference and settings name two revisions.
    """
    rest = job.reference.partition("://")[2] if "://" in job.reference else job.reference
    name, _, revision = rest.strip("/").partition("@")
    if not name or name.count("/") >= _LONGEST_ID:
        message = f"{job.shown} is no model on the Hub: write hf://org/name, or hf://org/name@revision"
        raise ModelNotFound(message, param="model")
    if revision and job.revision and revision != job.revision:
        message = f"{job.shown} names the revision {revision!r}, and the settings {job.revision!r}; keep one"
        raise ConfigError(message, param="revision")
    return name, revision or job.revision


def _arrived(storage: Path, folder: Path, sizes: dict[str, int | None], began: float) -> int:
    """Return the bytes that are there: whole files, and those that grow since ``began`` (seconds of the epoch)."""
    done = 0
    for path, size in sizes.items():
        if (folder / path).exists():
            done += size or 0
    for growing in storage.glob("blobs/*.incomplete"):
        try:
            stat = growing.stat()
        except OSError:  # it got its name just now
            continue
        if stat.st_mtime >= began - 1:
            done += stat.st_size
    return done


def _digest(job: FetchJob, file: Path) -> str:
    hasher = Checksum(algorithm="sha256", digest="").new()
    total, done = file.stat().st_size, 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            hasher.update(block)
            done += len(block)
            job.report("checking", done, total, file.name)
    return str(hasher.hexdigest())


def _mapped(job: FetchJob, name: str, revision: str | None, error: Exception) -> TrunnionError:  # noqa: PLR0911 - a table
    from . import _hub

    text = f"{type(error).__name__}: {error}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, _hub.GatedRepoError):
        message = f"{name} is gated: accept its terms on the Hub, and set HF_TOKEN to a token of that account"
        return PermissionDenied(message, param="model")
    if isinstance(error, _hub.RevisionNotFoundError):
        return ModelNotFound(f"{name} has no revision {revision!r} on the Hub", param="revision")
    if isinstance(error, _hub.RepositoryNotFoundError | _hub.HFValidationError):
        message = f"no model {name!r}: no path here has that name, nor has any model on the Hub that this process may "
        return ModelNotFound(message + "see (for a private one, set HF_TOKEN)", param="model")
    if isinstance(error, _hub.HfHubHTTPError) and status in _FORBIDDEN:
        return PermissionDenied(f"{name} may not be read: {text}; set HF_TOKEN to a token that can", param="model")
    if _hub.is_network_error(error) or isinstance(error, _hub.HfHubHTTPError | _hub.LocalEntryNotFoundError):
        return Transient(f"the Hub cannot be reached: {text}", param="model")
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return Transient(f"{name} came incomplete: {error}", param="model")
    if isinstance(error, OSError) and error.errno is not None:
        return disk_error(job, error)
    if isinstance(error, OSError) and "space" in str(error).lower():
        return storage_full(job, "the Hub's cache")
    return Transient(f"{name} cannot be fetched: {text}", param="model")
