"""Small tokenizers made on the spot, so that these tests need no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from trunnion.engine import EngineInfo, TokenizerRef
from trunnion.stage import StageContext

TEMPLATE = """{{- bos_token }}{%- if tools %}<|im_start|>system
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}{%- for message in messages %}
{%- if message.role == 'villain' %}{{ raise_exception('no villains here') }}{% endif %}<|im_start|>{{ message.role }}
{{ message.content }}{% for c in message.tool_calls or [] %}[{{ c.function.arguments.city }}]{% endfor %}<|im_end|>
{% endfor %}{%- if shout %}SHOUT{% endif %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

settings.register_profile("stages", database=None, deadline=None)
settings.load_profile("stages")
CORPUS = [
    "the quick brown fox jumps over the lazy dog. Hello world, you are a helpful assistant. user system",
    "日本語のテキスト。你好、世界 👋🏽 café naïve 👨‍👩‍👧 Ünïcödé résumé",
]


def context(path: Path | str | None) -> StageContext:
    ref = None if path is None else TokenizerRef(path=str(path))
    return StageContext(info=EngineInfo(engine="fake", model="m", tokenizer=ref))


def _byte_level(*, bos: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 5, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def _sentencepiece() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    words = [*"abcdefghijklmnopqrstuvwxyz,.é日", "▁", "▁t", "▁th", "▁the", "▁a", "▁H", "H", "el", "▁Hel"]
    vocab = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, *words])}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "a"), ("▁", "H"), ("e", "l"), ("▁H", "el")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return tokenizer


def _save(tokenizer: Any, path: Path, template: Any) -> Path:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    fast.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a byte-level tokenizer folder: ``make_tokenizer(template=..., bos=...)``."""

    def make(*, template: Any = TEMPLATE, bos: bool = False) -> Path:
        return _save(_byte_level(bos=bos), tmp_path_factory.mktemp("tokenizer"), template)

    return make


@pytest.fixture(scope="session")
def byte_level(make_tokenizer: Callable[..., Path]) -> Path:
    return make_tokenizer()


@pytest.fixture(scope="session")
def with_bos(make_tokenizer: Callable[..., Path]) -> Path:
    return make_tokenizer(bos=True)


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-2-like tokenizer: spaces in front, single bytes for what it does not know."""
    return _save(_sentencepiece(), tmp_path_factory.mktemp("tokenizer"), TEMPLATE)
