"""Make the simulator's tokens: words of a fixed list, drawn by a hash of seed, prompt and position."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from typing import Final

from trunnion import MessagesPrompt, Prompt, TextPrompt

WORDS: Final = (
    "amber", "beacon", "cedar", "delta", "ember", "fjord", "grove", "harbor",
    "indigo", "juniper", "kelp", "lantern", "meadow", "nectar", "orchid", "pebble",
    "quartz", "river", "saffron", "tundra", "umber", "velvet", "willow", "yarrow",
)  # fmt: skip
_TOKENS: Final = re.compile(r"\w+|[^\w\s]")
_PIECES: Final = re.compile(r"\s?\w+|\s?[^\w\s]|\s")
_FIRST_PIECE_ID: Final = 1000
_PIECE_IDS: Final = 60_000


def prompt_text(prompt: Prompt) -> str:
    """Return the prompt as text; token ids are written as numbers."""
    if isinstance(prompt, TextPrompt):
        return prompt.text
    if isinstance(prompt, MessagesPrompt):
        return "\n".join(f"{m.get('role', '')}: {_content(m.get('content'))}" for m in prompt.messages)
    return prompt.text if prompt.text is not None else " ".join(map(str, prompt.token_ids))


def _content(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def count_prompt_tokens(prompt: Prompt, text: str) -> int:
    """Return the number of prompt tokens: the ids given, else the words and punctuation marks of the text."""
    if not isinstance(prompt, TextPrompt | MessagesPrompt):
        return len(prompt.token_ids)
    return max(1, len(_TOKENS.findall(text)))


def prompt_token_ids(prompt: Prompt, text: str) -> Sequence[int]:
    """Return the ids of the prompt's tokens: as given, else a number for each word and punctuation mark."""
    if not isinstance(prompt, TextPrompt | MessagesPrompt):
        return prompt.token_ids
    return [piece_id(token) for token in _TOKENS.findall(text)] or [0]


def pieces(text: str) -> list[str]:
    """Cut text into tokens, which joined give it again: words and marks, each with the space before it."""
    return _PIECES.findall(text)


def piece_id(piece: str) -> int:
    """Return the id of a token that is none of the :data:`WORDS`."""
    return _FIRST_PIECE_ID + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % _PIECE_IDS


def draw(seed: str, count: int) -> bytes:
    """Return bytes that depend on the seed alone."""
    return hashlib.shake_128(seed.encode("utf-8", "surrogatepass")).digest(count)


def choose(seed: str, size: int, length: int) -> list[int]:
    """Return ``length`` numbers below ``size`` that depend on the seed alone."""
    if size > 1 << 8:
        drawn = draw(seed, 2 * length)
        return [(high << 8 | low) % size for high, low in zip(drawn[::2], drawn[1::2], strict=True)]
    return [number % size for number in draw(seed, length)]
