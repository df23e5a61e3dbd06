"""Say what a suite lacks, in the words of a test file or of the command line."""

from __future__ import annotations

import re
from typing import Final

ADAPTERS: Final = "give the suite adapters = {'name': 'path'}"
EFFECTS: Final = "give the suite effects = {feature: a test of it}"
EMBEDDING: Final = "give the suite a fixture `embedding`: the spec of a model that embeds"
NARROW: Final = "give the suite a fixture `narrow`: the spec of the engine for one request at a time"
TOKENIZER: Final = "give the suite one: tokenizer = 'path or Hub name'"
PROMPT: Final = "set `prompt` to another, or the engine's settings so that an answer ends"
LONG_PROMPT: Final = "set `prompt` to one whose greedy answer has 20 tokens or more"
SLOWER: Final = "set `prompt` or the engine's settings so that answers take longer"
ENGINE: Final = "see the fixture `engine`"

_CLI: Final = {
    ADAPTERS: "give --adapter NAME=PATH",
    EFFECTS: "only a suite of your own can show it, with effects = {feature: a test of it}",
    EMBEDDING: "give --embedding KEY=VALUE, or --embedding-model MODEL",
    NARROW: "give --narrow KEY=VALUE, the setting for one request at a time",
    TOKENIZER: "give --tokenizer PATH",
    PROMPT: "give another --prompt, or settings with which an answer ends (--set KEY=VALUE)",
    LONG_PROMPT: "give a --prompt whose greedy answer has 20 tokens or more",
    SLOWER: "give a --prompt or settings (--set KEY=VALUE) with which answers take longer",
    ENGINE: "see MODEL and --set",
}
_EITHER: Final = re.compile("|".join(map(re.escape, sorted(_CLI, key=len, reverse=True))))


def in_cli_terms(message: str) -> str:
    """Return a message of the kit with the options of ``trunnion plugins check`` where it names parts of a suite."""
    return _EITHER.sub(lambda found: _CLI[found[0]], message)
