"""Check a JSON value against the part of JSON Schema that the simulator understands."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from .json_pointer import resolve

ANNOTATIONS: Final = frozenset(
    {
        "$schema", "$id", "$defs", "$comment", "definitions", "title", "description", "default", "examples",
        "deprecated", "readOnly", "writeOnly", "discriminator",
    }
)  # fmt: skip
"""Keywords that constrain nothing."""


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


FORMATS: Final[Mapping[str, tuple[Callable[[str], bool], tuple[str, ...]]]] = {
    "date-time": (_parses(dt.datetime.fromisoformat), ("2024-05-17T09:30:00+00:00", "2025-01-02T18:05:30+00:00")),
    "date": (_parses(dt.date.fromisoformat), ("2024-05-17", "2025-01-02")),
    "time": (_parses(dt.time.fromisoformat), ("09:30:00+00:00", "18:05:30+00:00")),
    "email": (_matches(r"[^@\s]+@[^@\s]+"), ("amber@example.com", "cedar@example.org")),
    "uuid": (
        _matches(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("3f2b8c1e-5d4a-4e6f-9a7b-1c2d3e4f5a6b", "7d9e0f1a-2b3c-4d5e-8f6a-7b8c9d0e1f2a"),
    ),
    "uri": (_matches(r"[a-z]+:\S+"), ("https://example.com/amber", "https://example.org/cedar")),
    "ipv4": (_matches(r"\d+(\.\d+){3}"), ("192.0.2.1", "198.51.100.7")),
    "hostname": (_matches(r"[\w.-]+"), ("example.com", "amber.example.org")),
}
"""Formats that are made: how each is checked, and values that have it."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _equal(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 is 1.0, and true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True) or (
        _is_number(one) and _is_number(other) and one == other
    )


def satisfies(value: Any, schema: Any, root: Any) -> bool:
    """Tell whether the value satisfies the schema; ``root`` is what references point into."""
    if not isinstance(schema, Mapping):
        return schema is not False
    types = schema.get("type")
    if types is not None and not any(_IS[kind](value) for kind in ([types] if isinstance(types, str) else types)):
        return False
    if "const" in schema and not _equal(value, schema["const"]):
        return False
    if "enum" in schema and not any(_equal(value, one) for one in schema["enum"]):
        return False
    return _combined(value, schema, root) and _by_kind(value, schema, root)


def _combined(value: Any, schema: Mapping[str, Any], root: Any) -> bool:
    if "$ref" in schema and not satisfies(value, resolve(root, schema["$ref"]), root):
        return False
    if not all(satisfies(value, part, root) for part in schema.get("allOf", ())):
        return False
    if "anyOf" in schema and not any(satisfies(value, part, root) for part in schema["anyOf"]):
        return False
    return "oneOf" not in schema or sum(satisfies(value, part, root) for part in schema["oneOf"]) == 1


def _by_kind(value: Any, schema: Mapping[str, Any], root: Any) -> bool:
    if isinstance(value, dict):
        return _object(value, schema, root)
    if isinstance(value, list):
        return _array(value, schema, root)
    if isinstance(value, str):
        return _string(value, schema)
    return not _is_number(value) or _number(value, schema)


def _object(value: dict[str, Any], schema: Mapping[str, Any], root: Any) -> bool:
    properties = schema.get("properties", {})
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf):
        return False
    if any(name not in value for name in schema.get("required", ())):
        return False
    extra = schema.get("additionalProperties", True)
    return all(satisfies(inner, properties.get(name, extra), root) for name, inner in value.items())


def _array(value: list[Any], schema: Mapping[str, Any], root: Any) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
        return False
    if schema.get("uniqueItems") and any(_equal(a, b) for i, a in enumerate(value) for b in value[:i]):
        return False
    first = schema.get("prefixItems", ())
    inner = schema.get("items", True)
    return all(satisfies(one, first[i] if i < len(first) else inner, root) for i, one in enumerate(value))


def _string(value: str, schema: Mapping[str, Any]) -> bool:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
        return False
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        return False
    known = FORMATS.get(schema.get("format", ""))
    return known is None or known[0](value)


def _number(value: float, schema: Mapping[str, Any]) -> bool:
    if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        return False
    if not schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf):
        return False
    unit = schema.get("multipleOf")
    return unit is None or math.isclose(value / unit, round(value / unit), abs_tol=1e-9)
