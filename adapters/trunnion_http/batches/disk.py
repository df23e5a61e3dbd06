"""Write to the shared folder so that a reader never sees half of anything."""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path
from typing import Final

_ID: Final = re.compile(r"(?:file-|batch_)[0-9a-f]{32}")
_STAMP: Final = 16
"""Hexadecimal digits of an id that say when it was made, in nanoseconds."""


def new_id(prefix: str) -> str:
    """Return an id that nobody else has; sorted, ids are in the order in which they were made."""
    return f"{prefix}{time.time_ns():0{_STAMP}x}{secrets.token_hex(8)}"


def is_id(text: str, prefix: str) -> bool:
    """Tell whether a text has the form of our ids. Nothing else ever becomes a part of a path."""
    return text.startswith(prefix) and _ID.fullmatch(text) is not None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what was there. Blocks until it is on disk."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_once(path: Path, data: bytes) -> bool:
    """Create a file; False if it is there already, whoever else tries at the same time."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def names(folder: Path) -> list[str]:
    """List a folder; empty where there is none."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
