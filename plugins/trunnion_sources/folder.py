"""Keep the versions of one model in the cache: each in a folder of its own that appears whole or not at all.

``<cache>/models/<name>-<hash of the reference>/<hash of the version>/``, beside it ``...partial`` while it is being
fetched. A version is named by the paths, sizes and tags of its files, so that two versions never mix.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from trunnion.errors import InvalidArgument
from trunnion.fetch import FetchJob

from .download import PART
from .failures import storage_full, storing
from .remote import RemoteFile

MARKER: Final = ".trunnion.json"
"""Written last into a folder: it lists the files and their sizes."""


class VersionFolder:
    """Hold one version of a model, and what there is of it already."""

    def __init__(self, job: FetchJob, files: Sequence[RemoteFile]) -> None:
        listed = json.dumps([[file.path, file.size, file.tag] for file in sorted(files, key=lambda f: f.path)])
        name = hashlib.sha256(listed.encode()).hexdigest()[:16]
        self._job = job
        self._files = files
        self.final = job.folder / name
        self.partial = job.folder / f"{name}.partial"

    def ready(self) -> Path | None:
        """Return the folder if it is whole: every file is there with its size."""
        return self.final if is_whole(self.final) else None

    def open(self) -> int:
        """Make the folder of what is being fetched, and return the bytes of it that are there.

        A whole folder that was damaged since goes on as a partial one.

        Raises:
            InvalidArgument: A file would lie outside of the folder.
            InternalError: The disk has no room for what is missing.
        """
        for file in self._files:
            check_inside(file.path, self._job.shown)
        with storing(self._job):
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            if self.final.exists():
                if self.partial.exists():
                    shutil.rmtree(self.final)
                else:
                    self.final.rename(self.partial)
            self.partial.mkdir(exist_ok=True)
            done = sum(map(self._there, self._files))
            free = shutil.disk_usage(self.partial).free
        missing = sum(file.size or 0 for file in self._files) - done
        if missing > free:
            raise storage_full(self._job, str(self.partial), f": {missing} bytes are missing, {free} are free")
        return done

    def _there(self, file: RemoteFile) -> int:
        whole = self.partial / file.path
        if whole.exists():
            size = whole.stat().st_size
            if file.size in (None, size):
                return size
            whole.unlink()
        part = whole.with_name(whole.name + PART)
        return part.stat().st_size if part.exists() else 0

    def settle(self, made: Path | None = None) -> Path:
        """Put the folder in place, or the one that was made of it, and return where it is."""
        made = made or self.partial
        with storing(self._job):
            marker = made / MARKER
            marker.unlink(missing_ok=True)
            sizes = {str(path.relative_to(made)): path.stat().st_size for path in made.rglob("*") if path.is_file()}
            marker.write_text(json.dumps({"reference": self._job.shown, "files": sizes}, indent=1), encoding="utf-8")
            made.rename(self.final)
            if made != self.partial:
                shutil.rmtree(self.partial, ignore_errors=True)
        return self.final


def is_whole(folder: Path) -> bool:
    """Tell whether a folder was finished, and still holds every file with its size."""
    try:
        sizes = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
        return all((folder / path).stat().st_size == size for path, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def latest(job: FetchJob) -> Path | None:
    """Return the whole version that was fetched last; for when the source cannot be asked."""
    folders = [folder for folder in job.folder.glob("*") if folder.suffix != ".partial" and is_whole(folder)]
    return max(folders, key=lambda folder: (folder / MARKER).stat().st_mtime, default=None)


def check_inside(path: str, where: str) -> None:
    """Refuse a path that leads out of its folder. Raises :class:`InvalidArgument`."""
    pure = PurePosixPath(path)
    odd = "\\" in path or "\0" in path or (len(path) > 1 and path[1] == ":")
    if not path or pure.is_absolute() or ".." in pure.parts or odd:
        message = f"{where} holds a file called {path!r}, which would lie outside of the model's folder; refused"
        raise InvalidArgument(message, param="model")
