"""Let the simulator speak a real tokenizer's ids, so that the stages around an engine can be tested without one."""

from __future__ import annotations

from collections.abc import Sequence


class Vocabulary:
    """Hold the tokenizer at a path."""

    def __init__(self, path: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(path)
        special = [token for token in self._tokenizer.all_special_ids if token is not None]
        self.size: int = len(self._tokenizer)
        while special and self.size - 1 in special:
            self.size -= 1

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def names(self) -> Sequence[str]:
        """Return each token as text, by id."""
        return [self._tokenizer.decode([token]) for token in range(self.size)]
