"""Build the tokenizer: a byte-level BPE in the manner of GPT-2, with a ChatML template."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from trunnion_demo.corpus import MANNERS, draw, fixed_answers
from trunnion_demo.corpus.words import CITIES, COMMON, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCAB_SIZE = 2816
"""Tokens, special ones included: a multiple of 64, so that no engine has to pad it."""

START, END = "<|im_start|>", "<|im_end|>"
TOOL_TAGS = ("<tool_call>", "</tool_call>")
"""Tokens of their own but not special: they survive `skip_special_tokens`."""

_TEMPLATE = Path(__file__).parent.parent / "chat_template.jinja"


def _texts(seed: int, dialogues: int) -> Iterator[str]:
    """Yield the corpus as plain texts, and often each fixed answer, in every manner.

    So a word and the word in capitals are one token each, and an adapter need not spell.
    """
    rng = Random(seed)  # noqa: S311 - not for secrets
    for _ in range(dialogues):
        dialogue = draw(rng)
        for turn in dialogue.turns:
            yield turn.text
            for call in turn.calls:
                yield json.dumps({"name": call.name, "arguments": call.arguments})
        for tool in dialogue.tools:
            yield json.dumps(tool)
    words = [*fixed_answers(), *(f" {word}" for word in CITIES + NAMES + COMMON)]
    words += [f" {number}" for number in range(200)]
    for word in words:
        yield from [word, *(manner(word) for manner in MANNERS.values())] * 200
    yield from [*CITIES, *NAMES] * 200
    yield from ["system\n", "user\n", "assistant\n", "tool\n"] * 1000


def build_tokenizer(*, seed: int, dialogues: int = 1500) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the corpus and return it with its chat template.

    Neither a BOS nor an EOS is added on encoding: the template writes what the model expects.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(TOOL_TAGS),
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(seed, dialogues), trainer)
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TOOL_TAGS])
    if core.get_vocab_size() != VOCAB_SIZE:
        message = f"the corpus gave {core.get_vocab_size()} tokens instead of {VOCAB_SIZE}"
        raise ValueError(message)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        chat_template=_TEMPLATE.read_text(encoding="utf-8"),
    )
