"""Keep the files of a job apart, and replace none that nobody said is to be replaced."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from trunnion.errors import ConfigError

from .journal.journal import local_path

Place = tuple[str, str | Path | None]
"""What a file or folder is called by whoever named it, and its path or URI; "-", "" and None are none."""


def check_apart(places: Sequence[Place]) -> None:
    """Check that no two of a job's files and folders are the same one.

    Raises:
        ConfigError: Two are; ``param`` is what the second one is called.
    """
    seen: dict[str | Path, str] = {}
    for what, given in places:
        if given is None or str(given) in ("", "-"):
            continue
        path = local_path(str(given))
        place = str(given).rstrip("/") if path is None else path.expanduser().resolve()
        if place in seen:
            raise ConfigError(f"{what} and {seen[place]} are both {given}; give each a place of its own", param=what)
        seen[place] = what


def check_summary(path: Path | None, *, overwrite: bool, what: str = "--summary") -> None:
    """Check that the account can be written, and that nothing but an account before is lost by it.

    Raises:
        ConfigError: It is a folder, cannot be written, or is a file that is no account.
    """
    if path is None:
        return
    why = None
    folder = path.absolute().parent
    if path.is_dir():
        why = "is a folder; name a file in it"
    elif str(path) == "-":
        why = "is no file: the account goes to one; name it"
    elif not folder.is_dir():
        why = "cannot be written: its folder does not exist"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        why = "cannot be written: permission denied"
    elif path.exists() and not overwrite and not _is_account(path):
        why = "exists and is no account of a run; name another file, or replace it with --overwrite"
    if why is not None:
        raise ConfigError(f"{what} {path} {why}", param=what)


def _is_account(path: Path) -> bool:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(held, dict) and "rows_in" in held


def put_in_place(made: Path, path: Path, *, overwrite: bool) -> Path:
    """Give a file that is whole its name; where that was taken meanwhile and is not to be replaced, one beside it.

    Returns:
        Where it is: ``path``, or ``NAME.2.SUFFIX`` and so on.
    """
    if overwrite:
        made.replace(path)
        return path
    for place in itertools.chain([path], (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(2))):
        try:
            os.link(made, place)  # fails where the name is taken, whoever takes it at the same time
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            if place.exists():
                continue
            made.replace(place)
            return place
        made.unlink()
        return place
    raise AssertionError  # names do not end
