"""Parse ``key=value`` flags: dotted keys nest, values are JSON where they can be, else strings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer


def parse_assignments(flag: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the nested mapping of the pairs given to a flag; a key given twice keeps its last value.

    Raises:
        typer.BadParameter: A pair has no key or no ``=``, or one key is both a value and a group.
    """
    made: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise typer.BadParameter(f"{flag} takes KEY=VALUE, not {pair!r}")
        holder = made
        for part in parts[:-1]:
            holder = holder.setdefault(part, {})
            if not isinstance(holder, dict):
                raise typer.BadParameter(f"{flag} {key}: {part} is already set to a value that has no parts")
        holder[parts[-1]] = _value(text)
    return made


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
