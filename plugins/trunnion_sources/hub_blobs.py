"""Fetch the large files of a repository into the Hub's cache ourselves, so that they are resumed after a kill.

The Hub's library throws a half fetched file away when its process ends. Its cache has a documented layout: a large
file lies in ``blobs/`` under its SHA-256, and what lies there is linked, not fetched. Where the library fetches by Xet,
which resumes by itself and is faster, the files are left to it; so are those that plain HTTP does not serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from trunnion.fetch import FetchJob

from .client import WebClient
from .config import WebConfig
from .crew import Crew
from .download import PART, download
from .failures import storage_full, storing
from .remote import Checksum, Read, RemoteFile

_LARGEST: Final = 50 * 10**9
"""Bytes beyond which the Hub serves a file by Xet alone."""
_ATTEMPTS: Final = 5


def fetch_blobs(
    job: FetchJob, name: str, sha: str, wanted: Mapping[str, Any], *, storage: Path, workers: int, verify: bool
) -> None:
    """Bring the large files among ``wanted`` (the Hub's description by path) that the cache lacks into its blobs.

    Raises:
        TrunnionError: What the Hub or the disk failed with. What is there stays for the next attempt.
    """
    from . import _hub

    if _hub.has_xet():
        return
    # The Hub's cache may be shared by processes whose own caches, and so whose locks, are not.
    with job.locked(storage.parent / ".locks" / storage.name / "trunnion.lock"):
        _fetch(job, name, sha, wanted, storage=storage, workers=workers, verify=verify)


def _fetch(
    job: FetchJob, name: str, sha: str, wanted: Mapping[str, Any], *, storage: Path, workers: int, verify: bool
) -> None:
    from . import _hub

    blobs = storage / "blobs"
    missing = {
        path: one
        for path, one in wanted.items()
        if one.lfs is not None and one.size <= _LARGEST and not (blobs / one.lfs["sha256"]).exists()
    }
    if not missing:
        return
    with storing(job):
        blobs.mkdir(parents=True, exist_ok=True)
        free = _hub.free_space(blobs)
    parts = [blobs / f"{one.lfs['sha256']}{PART}" for one in missing.values()]
    begun = sum(part.stat().st_size for part in parts if part.exists())
    lacking = sum(one.size for one in missing.values()) - begun
    if lacking > free:
        raise storage_full(job, str(blobs), f": {lacking} bytes are missing, {free} are free")
    total = sum(one.size or 0 for one in wanted.values())
    there = sum(one.size or 0 for path, one in wanted.items() if path not in missing)
    crew = Crew(job, workers=workers, done=there + begun, total=total)

    def bring(path: str) -> None:
        one = missing[path]
        url = _hub.url(name, path, sha)
        client = WebClient(WebConfig(), own={urlsplit(url).hostname or "": _hub.headers()})
        checksum = Checksum(algorithm="sha256", digest=one.lfs["sha256"]) if verify else None
        file = RemoteFile(path=path, size=one.size, checksum=checksum, read=_reader(client, url))
        download(crew, file, blobs / one.lfs["sha256"], attempts=_ATTEMPTS)

    crew.run(sorted(missing, key=lambda path: -missing[path].size), bring)


def _reader(client: WebClient, url: str) -> Read:
    return lambda offset: client.read(url, offset, "")
