"""Remember which files of a repository were fetched whole, so that they can be taken without asking the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trunnion.fetch import FetchJob

_INDEXES: Final = ("*.safetensors.index.json", "*.bin.index.json")
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth")


class HubRecord:
    """Hold the record of one reference, in the cache of this program; the files lie in the Hub's."""

    def __init__(self, job: FetchJob) -> None:
        self._file = job.folder / "hub.json"
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            data = {}
        self._data: Mapping[str, Any] = data if isinstance(data, dict) else {}

    def holds(self, sha: str, sizes: Mapping[str, int | None]) -> bool:
        """Tell whether these files of this commit were fetched and are still whole."""
        return self._data.get("sha") == sha and set(sizes) <= set(self._data["files"]) and self.folder() is not None

    def folder(self) -> Path | None:
        """Return the folder of what was fetched; None if anything of it is gone."""
        try:
            folder = Path(self._data["folder"])
            whole = all((folder / path).stat().st_size == size for path, size in self._data["files"].items())
        except (OSError, KeyError):
            return None
        return folder if whole else None

    def write(self, folder: Path, sha: str, paths: Sequence[str]) -> None:
        """Write the record; a cache that cannot be written costs questions to the Hub and nothing else."""
        files = {path: (folder / path).stat().st_size for path in paths}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps({"folder": str(folder), "sha": sha, "files": files}), encoding="utf-8")
            fresh.replace(self._file)
        except OSError:
            return


def looks_whole(folder: Path) -> bool:
    """Tell whether a snapshot that others fetched has weights, and every shard that an index of it names."""
    for index in (path for pattern in _INDEXES for path in folder.glob(pattern)):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError):
            return False
        if not all((folder / shard).exists() for shard in shards):
            return False
    return any(True for pattern in _WEIGHTS for _ in folder.glob(pattern))
