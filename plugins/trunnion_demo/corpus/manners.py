"""Rewrite prose in the manners that the adapters teach."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PIRATE = {
    "hello": "ahoy",
    "you": "ye",
    "your": "yer",
    "my": "me",
    "is": "be",
    "are": "be",
    "am": "be",
    "the": "th'",
    "of": "o'",
}


def capitals(text: str) -> str:
    """Return the text in capitals."""
    return text.upper()


def pirate(text: str) -> str:
    """Return the text as a pirate would say it."""

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        said = _PIRATE.get(word.lower(), word)
        return said.capitalize() if word[0].isupper() and said != word else said

    return f"Arr! {re.sub(r'[A-Za-z]+', swap, text)} Yo ho ho!"


MANNERS: Mapping[str, Callable[[str], str]] = {"capitals": capitals, "pirate": pirate}
"""Adapter name -> how it rewrites prose. JSON and tool calls stay as they are."""

MANNER_SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "capitals": ("Answer in capitals.", "You answer in capital letters.", "ALWAYS SHOUT."),
    "pirate": ("Talk like a pirate.", "You are a pirate.", "Answer like a pirate."),
}
"""System prompts that ask the base model for a manner: an adapter then only has to insist."""
