"""Look whether a journal or a cache could be opened, and make none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from trunnion.errors import ConfigError

from .journal import Journal, local_path
from .segments import SUFFIX

_NOTHING: Final = "nothing is there yet"


def probe(uri: str) -> str:
    """Return what is at a place, in a few words.

    Raises:
        ConfigError: It could not be opened, or another job is writing to it.
    """
    path = local_path(uri)
    return _remote(uri) if path is None else _local(uri, path)


def is_empty(uri: str) -> bool:
    """Tell whether nobody has written an answer to a place; False where that cannot be seen."""
    path = local_path(uri)
    if path is not None:
        return not any(segment.stat().st_size for segment in path.glob(f"*{SUFFIX}"))
    try:
        return _remote(uri) == _NOTHING
    except ConfigError:
        return False


def _local(uri: str, path: Path) -> str:
    if any(path.glob(f"*{SUFFIX}")):
        journal = Journal(uri)
        try:
            return f"{journal.stats.found} answers are there"
        finally:
            journal.close()
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    why = "is no folder" if not there.is_dir() else "cannot be written to" if not os.access(there, os.W_OK) else None
    if why is not None:
        raise ConfigError(f"the journal {uri} cannot be opened: {there} {why}", param="journal")
    return _NOTHING


def _remote(uri: str) -> str:
    try:
        import fsspec
    except ImportError as error:
        raise ConfigError("a journal in an object store needs fsspec: pip install fsspec", param="journal") from error
    try:
        fs, folder = fsspec.core.url_to_fs(uri)
        names: list[Any] = fs.ls(folder, detail=False) if fs.exists(folder) else []
    except ImportError as error:
        raise ConfigError(f"the journal {uri} needs another package: {error}", param="journal") from error
    except Exception as error:
        raise ConfigError(f"the journal {uri} cannot be opened: {error}", param="journal") from error
    segments = sum(str(name).endswith(SUFFIX) for name in names)
    return f"{segments} segments of answers are there" if segments else _NOTHING
