"""Find where text must be held back because a marker may be beginning there."""

from __future__ import annotations

from collections.abc import Sequence


def hold_from(text: str, markers: Sequence[str], firsts: frozenset[str], longest: int) -> int:
    """Return the first index from which the rest of ``text`` is the beginning of a marker; its length if none is.

    ``firsts`` are the markers' first characters and ``longest`` the length of the longest marker.
    """
    size = len(text)
    begin = max(size - longest + 1, 0)
    if firsts.isdisjoint(text[begin:]):
        return size
    for index in range(begin, size):
        if text[index] in firsts:
            rest = text[index:]
            for marker in markers:
                if marker.startswith(rest):
                    return index
    return size
