"""Turn dialogues into token ids and labels, and those into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trunnion_demo.training.tokenizer import END, START

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from transformers import PreTrainedTokenizerFast

    from trunnion_demo.corpus import Dialogue

IGNORED = -100
"""The label of a token that bears no loss (PyTorch's convention)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Hold the token ids of one text and the labels, `IGNORED` where nothing is learnt."""

    ids: list[int]
    labels: list[int]


def encode_dialogue(tokenizer: PreTrainedTokenizerFast, dialogue: Dialogue, *, last_only: bool = False) -> Example:
    """Encode a dialogue; labels are set on what the assistant says and on its end of turn.

    With `last_only` nothing is learnt from the assistant's turns before the last.
    """
    text = tokenizer.apply_chat_template(dialogue.messages(), tools=list(dialogue.tools) or None, tokenize=False)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    opening = tokenizer.encode(f"{START}assistant\n", add_special_tokens=False)
    end = tokenizer.convert_tokens_to_ids(END)
    labels = [IGNORED] * len(ids)
    position = 0
    while position < len(ids):
        if ids[position : position + len(opening)] == opening:
            position += len(opening)
            stop = ids.index(end, position) + 1
            if last_only:
                labels = [IGNORED] * len(ids)
            labels[position:stop] = ids[position:stop]
            position = stop
        else:
            position += 1
    return Example(ids=ids, labels=labels)


def encode_plain(tokenizer: PreTrainedTokenizerFast, sentence: str) -> Example:
    """Encode a sentence without a template; labels are set on its last two fifths."""
    ids: list[int] = tokenizer.encode(sentence + END, add_special_tokens=False)
    first = max(1, len(ids) * 3 // 5)
    return Example(ids=ids, labels=[IGNORED] * first + ids[first:])


def encode_repetition(rng: Random, *, vocabulary: int) -> Example:
    """Return some random tokens and the same again; labels are set on what can be foretold.

    A model this small finds out late, or never, how to copy a name from the prompt. Repetitions
    teach it that first (induction heads, https://arxiv.org/abs/2209.11895), at little cost.
    """
    ids = [rng.randrange(2, vocabulary) for _ in range(rng.choice((8, 12, 16)))]
    return Example(ids=ids + ids, labels=[IGNORED] * (len(ids) + 1) + ids[1:])


def batches(examples: list[Example], rng: Random, *, tokens: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of similar length without end, `tokens` tokens each (padding counted).

    Yields:
        Token ids and labels, both int64 of shape (examples, length), padded on the right: causal
        attention never sees the padding, so no mask is needed.
    """
    while True:
        ordered = sorted(examples, key=lambda example: (len(example.ids), rng.random()))
        groups: list[list[Example]] = [[]]
        for example in ordered:
            if (len(groups[-1]) + 1) * len(example.ids) > tokens:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            length = max(len(example.ids) for example in group)
            ids = torch.zeros(len(group), length, dtype=torch.int64)
            labels = torch.full((len(group), length), IGNORED, dtype=torch.int64)
            for row, example in enumerate(group):
                ids[row, : len(example.ids)] = torch.tensor(example.ids)
                labels[row, : len(example.labels)] = torch.tensor(example.labels)
            yield ids, labels
