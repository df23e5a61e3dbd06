"""Write the account of a run to a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .console import say


def write_summary(path: Path, values: Mapping[str, Any]) -> None:
    """Write the account; say so if it cannot be, since the rows themselves are safe."""
    try:
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        say(f"the account could not be written to {path}: {error.strerror}")
