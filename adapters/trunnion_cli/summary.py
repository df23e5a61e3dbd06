"""Write the account of a run to a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .console import say


def ended_by(error: BaseException | None = None) -> dict[str, Any]:
    """Return what ended a run before its last row, for its account: an error, or else a person."""
    from trunnion.errors import TrunnionError

    if error is None or isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        told = {"code": "interrupted", "message": "the run was stopped by a signal"}
    elif isinstance(error, TrunnionError):
        told = {"code": error.code, "message": error.message}
    else:
        told = {"code": "internal_error", "message": f"{type(error).__name__}: {error}"}
    return {"ended_by": told}


def write_summary(path: Path, values: Mapping[str, Any]) -> None:
    """Write the account; say so if it cannot be, since the rows themselves are safe."""
    try:
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        say(f"the account could not be written to {path}: {error.strerror}")
