"""Make a JSON value that satisfies a JSON Schema, the same for the same seed; refuse what is not understood."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature

from ._regex import CannotMatch, matching
from .json_check import ANNOTATIONS, FORMATS, satisfies
from .json_pointer import resolve
from .tokens import WORDS, draw

_KNOWN: Final = ANNOTATIONS | {
    "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum",
    "format", "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minProperties",
    "minimum", "multipleOf", "oneOf", "pattern", "prefixItems", "properties", "required", "type", "uniqueItems",
}  # fmt: skip
_SHALLOW: Final = 4
"""Depth from which on no more is made than is required."""
_DEEPEST: Final = 48
_ITEMS: Final = 2
_SPREAD: Final = 100


def json_value(schema: Mapping[str, Any] | bool, seed: str) -> Any:  # noqa: FBT001 - a schema may be a boolean
    """Return a value that satisfies the schema.

    Raises:
        UnsupportedFeature: The schema uses a keyword that is not understood, or what it asks for was not found.
        InvalidArgument: The schema contradicts itself or is malformed.
    """
    maker = _Maker(schema, seed)
    try:
        value = maker.make(schema, 0)
        fits = satisfies(value, schema, schema)
    except (TypeError, AttributeError, KeyError, ValueError, RecursionError) as error:
        message = f"the JSON schema is malformed: {type(error).__name__}: {error}"
        raise InvalidArgument(message, param="output_format.json_schema") from error
    if not fits:
        raise _refused("its parts together are more than it can satisfy")
    return value


def _refused(why: str) -> UnsupportedFeature:
    message = f"the simulated engine cannot make JSON for this schema: {why}; simplify the schema, or script the answer"
    return UnsupportedFeature(
        message, param="output_format.json_schema", details={"feature": "output_format.json_schema"}
    )


def _bytes(seed: str) -> Iterator[int]:
    return itertools.chain.from_iterable(draw(f"{seed}/{block}", 64) for block in itertools.count())


class _Maker:
    """Walk a schema and make values."""

    def __init__(self, root: Any, seed: str) -> None:
        self._root = root
        self._source = _bytes(seed)

    def _pick(self, options: Sequence[Any]) -> Any:
        return options[next(self._source) % len(options)]

    def make(self, schema: Any, depth: int) -> Any:
        """Return a value for one schema."""
        if depth > _DEEPEST:
            raise _refused("it requires itself without end")
        if schema is True or schema == {}:
            return self._pick(WORDS)
        if not isinstance(schema, Mapping):
            raise (
                _refused("a part of it allows nothing")
                if schema is False
                else InvalidArgument(f"a JSON schema is an object, not {schema!r}", param="output_format.json_schema")
            )
        unknown = sorted(set(schema) - _KNOWN)
        if unknown:
            raise _refused(f"it does not understand {unknown[0]!r}")
        schema = self._merged(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._enumerated(schema)
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._alternative(schema, name, depth)
        return self._typed(schema, depth)

    def _merged(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Resolve a reference, and join what ``allOf`` lists; the check at the end sees whether that was right."""
        parts = [part if isinstance(part, Mapping) else {} for part in schema.get("allOf", ())]
        if "$ref" in schema:
            target = resolve(self._root, schema["$ref"])
            parts.insert(0, target if isinstance(target, Mapping) else {})
        if not parts:
            return schema
        joined: dict[str, Any] = {}
        own = {key: value for key, value in schema.items() if key not in ("allOf", "$ref")}
        for part in (*(self._merged(part) for part in parts), own):
            for key, value in part.items():
                if key == "properties":
                    joined[key] = {**joined.get(key, {}), **value}
                elif key == "required":
                    joined[key] = [*joined.get(key, ()), *value]
                else:
                    joined[key] = value
        unknown = sorted(set(joined) - _KNOWN)
        if unknown:
            raise _refused(f"it does not understand {unknown[0]!r}")
        return joined

    def _enumerated(self, schema: Mapping[str, Any]) -> Any:
        rest = {key: value for key, value in schema.items() if key != "enum"}
        fitting = [value for value in schema["enum"] if satisfies(value, rest, self._root)]
        if not fitting:
            raise _refused("nothing that it enumerates satisfies the rest")
        return self._pick(fitting)

    def _alternative(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        """Make one of the alternatives; deep down the shortest one comes first, so that recursion ends."""
        rest = {key: value for key, value in schema.items() if key != name}
        options = list(schema[name])
        first = next(self._source) % max(1, len(options))
        options = options[first:] + options[:first]
        if depth >= _SHALLOW:
            options.sort(key=lambda option: len(str(self._merged(option) if isinstance(option, Mapping) else option)))
        failure: Exception | None = None
        for option in options:
            try:
                value = self.make({**rest, "allOf": [option]} if rest else option, depth + 1)
            except UnsupportedFeature as error:
                failure = error
                continue
            if satisfies(value, schema, self._root):
                return value
        raise failure or _refused(f"no value satisfies its {name}")

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        kinds = schema.get("type", _implied(schema))
        kind = kinds if isinstance(kinds, str) else self._pick([k for k in kinds if k != "null"] or ["null"])
        if depth >= _SHALLOW and not isinstance(kinds, str) and "null" in kinds:
            return None
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        if kind in ("boolean", "null"):
            return None if kind == "null" else bool(next(self._source) % 2)
        raise InvalidArgument(f"JSON has no type {kind!r}", param="output_format.json_schema")

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        most = schema.get("maxProperties", math.inf)
        extra = schema.get("additionalProperties", True)
        made: dict[str, Any] = {}
        left = [name for name in dict.fromkeys(required) if name not in properties]
        for name, inner in properties.items():
            optional = name not in required
            if optional and (depth >= _SHALLOW or len(made) >= most - len(set(required) - set(made))):
                continue
            try:
                made[name] = self.make(inner, depth + 1)
            except UnsupportedFeature:
                if not optional:
                    raise
        for name in left:
            made[name] = self.make(extra, depth + 1)
        while len(made) < schema.get("minProperties", 0):
            name = f"{self._pick(WORDS)}_{len(made)}"
            made[name] = self.make(extra, depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = schema.get("prefixItems", ())
        inner = schema.get("items", True)
        fewest = schema.get("minItems", 0)
        count = max(fewest, len(first), 0 if depth >= _SHALLOW or inner is False else _ITEMS)
        count = int(min(count, schema.get("maxItems", math.inf)))
        made: list[Any] = []
        tries = 0
        while len(made) < count:
            value = self.make(first[len(made)] if len(made) < len(first) else inner, depth + 1)
            tries += 1
            if schema.get("uniqueItems") and value in made:
                if len(made) >= fewest:
                    break
                if tries > 50 * count:
                    raise _refused("there are too few different items")
                continue
            made.append(value)
        return made

    def _string(self, schema: Mapping[str, Any]) -> str:
        shortest, longest = int(schema.get("minLength", 0)), schema.get("maxLength", math.inf)
        if "pattern" in schema:
            try:
                return matching(schema["pattern"], self._source, whole=False)
            except CannotMatch as error:
                raise _refused(str(error)) from error
        if "format" in schema:
            examples = FORMATS.get(schema["format"])
            if examples is None:
                raise _refused(f"it does not understand the format {schema['format']!r}")
            return str(self._pick(examples[1]))
        text = str(self._pick(WORDS))
        while len(text) < shortest:
            text += f" {self._pick(WORDS)}"
        return text[: int(min(longest, max(shortest, len(text))))]

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float | int:
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        unit = schema.get("multipleOf", 1 if whole else 0.5)
        if whole and unit != int(unit):
            raise _refused("an integer is to be a multiple of a fraction")
        # Without one bound, take a stretch from the other.
        low = max(low, schema.get("exclusiveMinimum", -math.inf))
        high = min(high, schema.get("exclusiveMaximum", math.inf))
        if low == -math.inf:
            low = 0 if high > 0 else high - _SPREAD * unit
        if high == math.inf:
            high = low + _SPREAD * unit
        first, last = math.ceil(low / unit), math.floor(high / unit)
        for step in range(first, min(last, first + 2 * _SPREAD) + 1):
            value = (first + (step - first + next(self._source)) % (last - first + 1)) * unit
            value = int(value) if whole or (isinstance(unit, int) and value == int(value)) else value
            if satisfies(value, schema, self._root):
                return value
        middle = (low + high) / 2
        if not whole and "multipleOf" not in schema and satisfies(middle, schema, self._root):
            return float(middle)
        raise _refused("no number lies within its bounds")


def _implied(schema: Mapping[str, Any]) -> str:
    """Return the type that the keywords of a schema without one are about."""
    if {"properties", "required", "additionalProperties", "minProperties"} & set(schema):
        return "object"
    if {"items", "prefixItems", "minItems"} & set(schema):
        return "array"
    if {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"} & set(schema):
        return "number"
    return "string"
