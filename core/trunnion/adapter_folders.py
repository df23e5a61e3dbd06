"""Find LoRA adapters in folders, local or remote, and keep paths that clients name inside of them."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .errors import ConfigError, InvalidArgument
from .sources import scheme_of

logger = logging.getLogger("trunnion.adapters")

CONFIG_FILE: Final = "adapter_config.json"
"""What a folder of PEFT's holds where it is an adapter."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class AdapterFolders:
    """Know the folders whose subfolders are adapters; each is named as its subfolder. Methods block on their I/O."""

    def __init__(self, folders: Sequence[str]) -> None:
        """Take paths or URIs that fsspec opens. Raises :class:`ConfigError` where a local folder is not there."""
        self._local: list[Path] = []
        self._remote: list[str] = []
        for folder in folders:
            if scheme_of(folder) is not None:
                self._remote.append(folder.rstrip("/"))
                continue
            path = Path(folder).expanduser()
            if not path.is_dir():
                raise ConfigError(f"there is no folder {folder} to find adapters in", param="adapter_folders")
            self._local.append(path.resolve())

    def scan(self) -> dict[str, str]:
        """Return name and path of every adapter there is; the first folder wins where two hold one name.

        A folder that cannot be read is logged, and what others hold is returned.
        """
        found: dict[str, str] = {}
        for folder in self._local:
            try:
                entries = sorted(folder.iterdir())
            except OSError as error:
                logger.warning("the adapters in %s cannot be listed: %s", folder, error)
                continue
            for entry in entries:
                inside = folder in entry.resolve().parents  # no link leads out
                if _NAME.fullmatch(entry.name) and inside and (entry / CONFIG_FILE).is_file():
                    found.setdefault(entry.name, str(entry))
        for uri in self._remote:
            try:
                names = _list(uri)
            except Exception as error:  # noqa: BLE001 - each filesystem raises its own
                logger.warning("the adapters in %s cannot be listed: %s", uri, error)
                continue
            for name in names:
                found.setdefault(name, f"{uri}/{name}")
        return found

    def confine(self, path: str) -> str:
        """Return a path that a client named, having seen that it lies in one of the folders.

        Raises:
            InvalidArgument: It does not.
        """
        if scheme_of(path) is None:
            whole = Path(path).expanduser()
            if not whole.is_absolute() and self._local:
                whole = self._local[0] / whole
            real = whole.resolve()
            if any(folder in real.parents for folder in self._local):
                return str(real)
        else:
            scheme, _, rest = path.partition("://")
            clean = f"{scheme}://{posixpath.normpath(rest)}"
            if "%" not in rest and any(clean.startswith(f"{uri}/") for uri in self._remote):
                return clean
        raise InvalidArgument(
            "lora_path lies in none of the folders that adapters may be loaded from here; copy the adapter into one "
            "of them, or let the server be started with its folder",
            param="lora_path",
        )


def check_name(name: str) -> str:
    """Return an adapter's name. Raises :class:`InvalidArgument` where it would not do as the name of a model."""
    if not _NAME.fullmatch(name):
        message = "lora_name must be letters, digits, '.', '_' and '-', begin with a letter or digit, and have 1 to 128"
        raise InvalidArgument(message, param="lora_name")
    return name


def _list(uri: str) -> list[str]:
    try:
        import fsspec
    except ImportError as error:
        raise RuntimeError(f"fsspec is needed to list it ({error}): pip install fsspec") from error
    files: Any
    files, root = fsspec.core.url_to_fs(uri)
    files.invalidate_cache()
    names = [str(entry).rstrip("/").rpartition("/")[2] for entry in files.ls(root, detail=False)]
    return sorted(name for name in names if _NAME.fullmatch(name) and files.exists(f"{root}/{name}/{CONFIG_FILE}"))
