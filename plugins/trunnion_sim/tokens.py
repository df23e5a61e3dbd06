"""Make the simulator's tokens: words of a fixed list, drawn by a hash of seed, prompt and position."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from trunnion import GenerateRequest, MessagesPrompt, TextPrompt

WORDS: Final = (
    "amber", "beacon", "cedar", "delta", "ember", "fjord", "grove", "harbor",
    "indigo", "juniper", "kelp", "lantern", "meadow", "nectar", "orchid", "pebble",
    "quartz", "river", "saffron", "tundra", "umber", "velvet", "willow", "yarrow",
)  # fmt: skip


def prompt_text(request: GenerateRequest) -> str:
    """Return the prompt as text; token ids are written as numbers."""
    prompt = request.prompt
    if isinstance(prompt, TextPrompt):
        return prompt.text
    if isinstance(prompt, MessagesPrompt):
        return "\n".join(f"{m.get('role', '')}: {_content(m.get('content'))}" for m in prompt.messages)
    return prompt.text if prompt.text is not None else " ".join(map(str, prompt.token_ids))


def _content(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def count_prompt_tokens(request: GenerateRequest) -> int:
    """Return the number of prompt tokens: the ids given, else the words and punctuation marks of the text."""
    prompt = request.prompt
    if not isinstance(prompt, TextPrompt | MessagesPrompt):
        return len(prompt.token_ids)
    return max(1, len(re.findall(r"\w+|[^\w\s]", prompt_text(request))))


def draws(seed: str) -> Iterator[int]:
    """Yield an endless stream of bytes that depends on the seed alone."""
    block = 0
    while True:
        yield from hashlib.blake2b(f"{seed}/{block}".encode()).digest()
        block += 1


def choose(seed: str, size: int, length: int) -> list[int]:
    """Return ``length`` numbers below ``size`` that depend on the seed alone."""
    source = draws(seed)
    if size > 1 << 8:
        return [(next(source) << 8 | next(source)) % size for _ in range(length)]
    return [next(source) % size for _ in range(length)]
