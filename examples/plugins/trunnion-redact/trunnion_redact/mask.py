"""Give the values of one request their placeholders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trunnion import GenerateRequest
from trunnion.errors import InvalidArgument

from .config import Kind
from .find import Finder
from .walk import rewritten

_LABELS: Final[dict[Kind, str]] = {"email": "EMAIL", "phone": "PHONE"}
_LITERAL: Final = re.compile(r"<(?:EMAIL|PHONE)_[0-9]+>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """Hold what was masked in one request: value by placeholder. Its representation shows no value."""

    values: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Masked({', '.join(self.values)})"


class _Masker:
    """Mask text by text; equal values get equal placeholders, numbered by kind in the order they turn up."""

    def __init__(self, finder: Finder, taken: frozenset[str]) -> None:
        self._finder = finder
        self._taken = taken
        self._placeholders: dict[str, str] = {}
        self._count: dict[Kind, int] = dict.fromkeys(_LABELS, 0)

    def __call__(self, text: str) -> str:
        found = self._finder.find(text)
        if not found:
            return text
        pieces, end = [], 0
        for one in found:
            value = text[one.start : one.end]
            pieces += [text[end : one.start], self._placeholder(value, one.kind)]
            end = one.end
        return "".join([*pieces, text[end:]])

    def _placeholder(self, value: str, kind: Kind) -> str:
        made = self._placeholders.get(value)
        while made is None or made in self._taken:
            self._count[kind] += 1
            made = f"<{_LABELS[kind]}_{self._count[kind]}>"
        self._placeholders[value] = made
        return made

    @property
    def masked(self) -> Masked:
        """Return what was masked so far."""
        return Masked(values={made: value for value, made in self._placeholders.items()})


def mask(request: GenerateRequest, finder: Finder) -> tuple[GenerateRequest, Masked]:
    """Mask the texts of a request. What looks like a placeholder and is the user's own text is given to no value.

    Raises:
        InvalidArgument: A stop string would strike within a placeholder.
    """
    literal: set[str] = set()

    def look(text: str) -> str:
        literal.update(_LITERAL.findall(text))
        return text

    rewritten(request, look)
    masker = _Masker(finder, frozenset(literal))
    made = rewritten(request, masker)
    masked = masker.masked
    for stop in made.sampling.stop:
        for placeholder in masked.values:
            if _strikes_within(stop, placeholder):
                msg = (
                    f"stop string {stop!r} would cut {placeholder}, which stands for a value that is masked in this "
                    "request; use another stop string"
                )
                raise InvalidArgument(msg, param="stop")
    return made, masked


def _strikes_within(stop: str, placeholder: str) -> bool:
    """Tell whether a stop string may match a part of a placeholder, with or without text around it."""
    sizes = range(1, min(len(stop), len(placeholder) - 1) + 1)
    ends_in_it = any(placeholder.startswith(stop[-size:]) for size in sizes)
    begins_in_it = any(placeholder.endswith(stop[:size]) for size in sizes)
    return ends_in_it or begins_in_it or (stop in placeholder and stop != placeholder)
