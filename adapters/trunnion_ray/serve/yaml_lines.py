"""Read YAML with the line of every key, so that what is wrong in a file can be said with its place."""

from __future__ import annotations

from typing import Any, Final

import yaml

from trunnion.errors import ConfigError

Place = tuple[str | int, ...]
"""The keys and indices that lead to a value, from the top of the file."""
_FAR: Final = 100
"""Levels below which nothing is looked at: an alias may hold itself."""


def read_yaml(text: str, *, name: str) -> tuple[Any, dict[Place, int]]:
    """Return what a YAML document says, and the line of each of its keys and items, counted from 1.

    Args:
        text: The document.
        name: How the errors call it.

    Raises:
        ConfigError: It is no YAML, or a key is given twice, of which YAML would take the last.
    """
    loader = yaml.SafeLoader(text)
    lines: dict[Place, int] = {}
    try:
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _walk(node, (), lines, name)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark is not None else ""
        raise ConfigError(f"{name} is not valid YAML:{where} {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    except (ValueError, RecursionError) as error:  # a date that is none; an alias that holds itself
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    finally:
        loader.dispose()


def _walk(node: Any, place: Place, lines: dict[Place, int], name: str) -> None:
    if len(place) > _FAR:
        return
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*place, index] = item.start_mark.line + 1
            _walk(item, (*place, index), lines, name)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                path = dotted((*place, key.value))
                raise ConfigError(f"{name}: line {line}: {path} is given twice, first in line {seen[key.value]}")
            seen[key.value] = line
            lines[*place, key.value] = line
            _walk(value, (*place, key.value), lines, name)


def dotted(place: Place) -> str:
    """Return a place as people write it, such as ``applications[0].args.models[1].engine``."""
    said = ""
    for part in place:
        if isinstance(part, int):
            said += f"[{part}]"
        elif part.replace("-", "_").isidentifier():
            said += f".{part}" if said else part
        else:
            said += f"[{part!r}]"
    return said


def line_of(place: Place, lines: dict[Place, int]) -> int | None:
    """Return the line of a place, or of the nearest one above it that has a line."""
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return None
