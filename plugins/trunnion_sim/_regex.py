"""Make a text that matches a regular expression. The standard library's parser is private; it is used here alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_CATEGORIES: Final = {"DIGIT": "0123456789", "WORD": _ALPHABET + "0123456789", "SPACE": " "}
_VISIBLE: Final = "".join(map(chr, range(33, 127)))
_FEW: Final = 3
"""Repetitions made beyond the fewest, where more are allowed."""


class CannotMatch(Exception):
    """Report that no text can be made; the message says which part is too much."""


def matching(pattern: str, source: Iterator[int], *, whole: bool) -> str:
    """Return a text in which the pattern is found, or that it matches as a whole.

    Raises:
        CannotMatch: The pattern is none, or has parts that are not simple: look-around, references, conditions.
    """
    try:
        compiled = re.compile(pattern)
        made = _many(_parser.parse(pattern), source)
    except (re.error, RecursionError, OverflowError) as error:
        raise CannotMatch(f"{pattern!r} is no regular expression: {error}") from error
    if not (compiled.fullmatch(made) if whole else compiled.search(made)):
        raise CannotMatch(f"no text that matches {pattern!r} was found")
    return made


def _many(parts: Any, source: Iterator[int]) -> str:
    return "".join(_one(str(kind), value, source) for kind, value in parts)


def _one(kind: str, value: Any, source: Iterator[int]) -> str:  # noqa: PLR0911 - a table in the form of code
    if kind == "LITERAL":
        return chr(value)
    if kind == "NOT_LITERAL":
        return next(letter for letter in _ALPHABET if letter != chr(value))
    if kind == "ANY":
        return _ALPHABET[next(source) % 26]
    if kind == "AT":
        return ""
    if kind == "IN":
        allowed = _allowed(value)
        if not allowed:
            raise CannotMatch("a set in the pattern has no plain character")
        return allowed[next(source) % len(allowed)]
    if kind == "BRANCH":
        _, branches = value
        return _many(branches[next(source) % len(branches)], source)
    if kind == "SUBPATTERN":
        return _many(value[3], source)
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        fewest, most, inner = value
        times = fewest + next(source) % (min(int(most) - fewest, _FEW) + 1)
        return "".join(_many(inner, source) for _ in range(times))
    raise CannotMatch(f"the simulated engine makes no text for {kind.lower().replace('_', ' ')} in a pattern")


def _allowed(items: Any) -> str:
    r"""Return the characters of a set such as ``[a-z\d]`` or ``[^"]``, visible ones where it is negated."""
    negated, found = False, ""
    for kind, value in items:
        name = str(kind)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            found += chr(value)
        elif name == "RANGE":
            first, last = value
            found += "".join(map(chr, range(first, min(last, first + 127) + 1)))
        elif name == "CATEGORY":
            found += _category(str(value).removeprefix("CATEGORY_"))
    if not negated:
        return found
    return "".join(letter for letter in _ALPHABET + _VISIBLE if letter not in found)


def _category(name: str) -> str:
    if name.startswith("NOT_"):
        excluded = _CATEGORIES.get(name.removeprefix("NOT_"), "")
        return "".join(letter for letter in _VISIBLE if letter not in excluded)
    return _CATEGORIES.get(name, "")
