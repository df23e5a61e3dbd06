"""Hear words in audio: which ones depends on its bytes, how many on its length."""

from __future__ import annotations

import hashlib
from typing import Final

from .tokens import WORDS, choose

_BYTES_PER_TOKEN: Final = 1280
"""As much as 40 ms of 16 bits at 16 kHz."""
_TOKENS_PER_WORD: Final = 10


def audio_tokens(audio: bytes) -> int:
    """Return the tokens that the engine makes of a file, one or more."""
    return max(1, -(-len(audio) // _BYTES_PER_TOKEN))


def hear(audio: bytes, *, language: str | None, most: int, seed: str) -> list[str]:
    """Return the words of a file, between one and ``most``: the same for the same bytes, language and seed."""
    count = min(most, max(1, audio_tokens(audio) // _TOKENS_PER_WORD))
    digest = hashlib.blake2b(audio, digest_size=16).hexdigest()
    return [WORDS[number] for number in choose(f"{seed}/hear/{language}/{digest}", len(WORDS), count)]
