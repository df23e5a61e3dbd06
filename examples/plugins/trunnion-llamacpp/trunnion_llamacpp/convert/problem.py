"""Say why something cannot be converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class ConversionError(ValueError):
    """Refuse a model or an adapter that this conversion does not know."""


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a file. Raises FileNotFoundError, or :class:`ConversionError` if it holds none."""
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {file}") from None
    except (OSError, ValueError) as error:
        raise ConversionError(f"{file} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise ConversionError(f"{file} holds no JSON object")
    return read
