"""Turn a JSON schema into a grammar (GBNF) whose every text satisfies the schema.

The grammar may be narrower than the schema: properties come in their order, and none that the schema does not list.
A keyword that it could not hold to is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature

_PARAM: Final = "output_format.json_schema"
_ANNOTATIONS: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"}
    | {"$schema", "$id", "$comment", "$defs", "definitions"}
)
_BY_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "format"}),
    "integer": frozenset(),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_BASE: Final[Mapping[str, str]] = {
    "ws": r'| " " | "\n" [ \t]{0,20}',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": r'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "object": r'"{" ws (string ":" ws value ws ("," ws string ":" ws value ws)*)? "}"',
    "array": r'"[" ws (value ws ("," ws value ws)*)? "]"',
    "date": r'[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "time": r'([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("Z" | [+-] [01] [0-9] ":" [0-5] [0-9])',
    "date-time": 'date "T" time',
    "uuid": r'[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
}
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_FORMATS: Final = ("date", "time", "date-time", "uuid")


class SchemaGrammar:
    """Build the rules of one schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Read the schema.

        Raises:
            InvalidArgument: It is no schema.
            UnsupportedFeature: It holds a keyword that a grammar cannot hold to.
        """
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._refs: dict[str, str] = {}
        self._count = 0
        try:
            self._rules["root"] = self._visit(schema)
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            message = f"the JSON schema cannot be read ({type(error).__name__}: {error})"
            raise InvalidArgument(message, param=_PARAM) from error

    def text(self) -> str:
        """Return the grammar."""
        return "\n".join(f"{name} ::= {rule}" for name, rule in {**self._rules, **_BASE}.items())

    def _rule(self, body: str) -> str:
        self._count += 1
        name = f"r{self._count}"
        self._rules[name] = body
        return name

    def _visit(self, schema: Any) -> str:
        """Return an expression for a schema, safe to stand among others."""
        if schema is True:
            return "value"
        if not isinstance(schema, Mapping):
            raise InvalidArgument(f"a JSON schema is an object, not {schema!r}", param=_PARAM)
        keys = schema.keys() - _ANNOTATIONS
        if not keys:
            return "value"
        if "$ref" in keys:
            self._only(schema, {"$ref"})
            return self._ref(schema["$ref"])
        for word in ("const", "enum"):
            if word in keys:
                self._only(schema, {word, "type"})
                values = [schema["const"]] if word == "const" else list(schema["enum"])
                if not values:
                    raise InvalidArgument("the JSON schema's enum is empty: nothing satisfies it", param=_PARAM)
                return self._rule(" | ".join(literal(json.dumps(v, ensure_ascii=False)) for v in values))
        for word in ("anyOf", "oneOf", "allOf"):
            if word in keys:
                self._only(schema, {word})
                parts = schema[word]
                if word == "allOf" and len(parts) > 1:
                    raise _unsupported("allOf", "of several schemas")
                return self._rule(" | ".join(self._visit(part) for part in parts))
        types = schema.get("type") or _implied(keys)
        several = [types] if isinstance(types, str) else list(types)
        if unknown := [t for t in several if t not in _BY_TYPE]:
            raise InvalidArgument(f"the JSON schema has no type {unknown[0]!r}", param=_PARAM)
        self._only(schema, {"type", *(word for t in several for word in _BY_TYPE[t])})
        made = [self._typed(t, schema) for t in several]
        return made[0] if len(made) == 1 else self._rule(" | ".join(made))

    def _only(self, schema: Mapping[str, Any], known: set[str]) -> None:
        if wrong := sorted(schema.keys() - _ANNOTATIONS - known):
            raise _unsupported(wrong[0], f"beside {', '.join(sorted(known & schema.keys())) or 'nothing'}")

    def _ref(self, ref: Any) -> str:
        if ref not in self._refs:
            self._refs[ref] = name = self._rule("")
            target: Any = self._schema
            if not isinstance(ref, str) or not ref.startswith("#"):
                raise _unsupported("$ref", "to another document")
            for part in ref[1:].split("/")[1:]:
                step = part.replace("~1", "/").replace("~0", "~")
                target = target.get(step) if isinstance(target, Mapping) else None
            if target is None:
                raise InvalidArgument(f"the JSON schema refers to {ref!r}, which it does not hold", param=_PARAM)
            self._rules[name] = self._visit(target)
        return self._refs[ref]

    def _typed(self, kind: str, schema: Mapping[str, Any]) -> str:
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if kind == "string":
            return self._string(schema)
        return kind

    def _string(self, schema: Mapping[str, Any]) -> str:
        form = schema.get("format")
        if form is not None:
            if form not in _FORMATS or "minLength" in schema or "maxLength" in schema:
                raise _unsupported("format", f"{form!r}; there are {', '.join(_FORMATS)}, without lengths")
            return self._rule(rf'"\"" {form} "\""')
        if "minLength" not in schema and "maxLength" not in schema:
            return "string"
        return self._rule(rf'"\"" char{_times(schema.get("minLength", 0), schema.get("maxLength"))} "\""')

    def _array(self, schema: Mapping[str, Any]) -> str:
        first = [self._visit(item) for item in schema.get("prefixItems", ())]
        least, most = schema.get("minItems", len(first)), schema.get("maxItems")
        if least < len(first) or (most is not None and most < max(least, 1)):
            raise _unsupported("minItems", "below prefixItems, or above maxItems")
        rest = schema.get("items", not first)
        item = None if rest is False else self._visit(rest)
        if item is None and least > len(first):
            raise InvalidArgument("the JSON schema's minItems allows no array at all", param=_PARAM)
        fixed = ' ws "," ws '.join(first)
        if item is None:
            return self._rule(f'"[" ws {fixed} ws "]"')
        more = f'(ws "," ws {item})'
        if first:
            top = None if most is None else most - len(first)
            return self._rule(f'"[" ws {fixed} {more}{_times(least - len(first), top)} ws "]"')
        body = f"{item} {more}{_times(max(0, least - 1), None if most is None else most - 1)}"
        return self._rule(f'"[" ws {body} ws "]"' if least else f'"[" ws ({body} ws)? "]"')

    def _object(self, schema: Mapping[str, Any]) -> str:
        properties = dict(schema.get("properties") or {})
        required = list(schema.get("required") or ())
        further = schema.get("additionalProperties", True)
        for name in required:
            if name not in properties:
                if further is False:
                    message = f"the JSON schema requires {name!r} and allows no such property"
                    raise InvalidArgument(message, param=_PARAM)
                properties[name] = further
        if not properties:
            if further is False:
                return self._rule('"{" ws "}"')
            value = self._visit(further)
            pair = f'string ws ":" ws {value} ws'
            return self._rule(rf'"{{" ws ({pair} ("," ws {pair})*)? "}}"')
        pairs = [
            (name in required, rf'{literal(json.dumps(name, ensure_ascii=False))} ws ":" ws {self._visit(value)} ws')
            for name, value in properties.items()
        ]
        head = tail = '"}"'  # what may follow where nothing was written yet, and where something was
        for needed, pair in reversed(pairs):
            one = self._rule(pair)
            before_head, before_tail = head, tail
            head = f"{one} {before_tail}"
            tail = f'"," ws {one} {before_tail}'
            if not needed:
                head, tail = f"{head} | {before_head}", f"{tail} | {before_tail}"
            head, tail = self._rule(head), self._rule(tail)
        return self._rule(f'"{{" ws {head}')


def _implied(keys: Iterable[str]) -> list[str]:
    """Return the type that keywords speak of where the schema names none, which here excludes the others."""
    found = [kind for kind, words in _BY_TYPE.items() if words & set(keys)]
    return found[:1] or list(_BY_TYPE)


def _times(least: int, most: int | None) -> str:
    if least < 0 or (most is not None and most < least):
        raise InvalidArgument(f"the JSON schema asks for {least} to {most} of something", param=_PARAM)
    return f"{{{least},{'' if most is None else most}}}"


def literal(text: str) -> str:
    """Return a text as GBNF writes it."""
    return '"' + "".join(_ESCAPES.get(c, c if c >= " " else f"\\x{ord(c):02X}") for c in text) + '"'


def _unsupported(word: str, how: str) -> UnsupportedFeature:
    message = f"a grammar cannot hold to {word} {how} in a JSON schema; leave it out and check the answer"
    return UnsupportedFeature(message, param=f"{_PARAM}.{word}")
