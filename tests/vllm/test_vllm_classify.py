"""Labels and cross-encoders' scores, with the pooling runner over tiny models with random weights."""

import pytest
from vllm_settings import SETTINGS

from trunnion.errors import ContextOverflow, UnsupportedFeature
from trunnion.requests import TextPrompt
from trunnion_vllm.config import VLLMConfig

pytestmark = pytest.mark.engine

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "house", "seven", "times", "eight", "is"]
TEXTS = ("a red house", "a red house is a house", "seven times eight")


def write(path, labels):
    """Write a BERT of two layers that classifies, with a word tokenizer that joins pairs; return its folder."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(1)
    BertForSequenceClassification(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.5,
            id2label=dict(enumerate(labels)),
            label2id={label: place for place, label in enumerate(labels)},
        )
    ).save_pretrained(path)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(path)
    return str(path)


def logits(path, *texts):
    """Return what transformers gives for one text, or one pair."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with torch.inference_mode():
        tokens = AutoTokenizer.from_pretrained(path)(*texts, return_tensors="pt")
        return AutoModelForSequenceClassification.from_pretrained(path).eval()(**tokens).logits[0]


async def started(path):
    from trunnion_vllm.engine import VLLMEngine

    settings = {**SETTINGS, "max_model_len": 64, "dtype": "float32", "gc_freeze": False}
    engine = VLLMEngine(path, VLLMConfig(**settings))
    return engine, await engine.start()


async def test_a_classifier_gives_its_labels(vllm_environment, tmp_path):
    path = write(tmp_path, ["bad", "fair", "good"])
    engine, info = await started(path)
    try:
        assert {"embeds/1", "scores/1", "classifies/1"} & info.capabilities.protocols == {"classifies/1"}
        found = await engine.classify([TextPrompt(text=text) for text in TEXTS])
        for text, one in zip(TEXTS, found, strict=True):
            assert list(one.probabilities) == ["bad", "fair", "good"]
            expected = logits(path, text).softmax(-1).tolist()
            assert list(one.probabilities.values()) == pytest.approx(expected, abs=1e-3)
        assert [one.usage.prompt_tokens for one in found] == [5, 8, 5]
        with pytest.raises(UnsupportedFeature, match="score"):
            await engine.score("a", ["b"])
        assert engine.load().running == 0
    finally:
        await engine.stop()


async def test_a_cross_encoder_scores_pairs(vllm_environment, tmp_path):
    path = write(tmp_path, ["relevance"])
    engine, info = await started(path)
    try:
        assert {"embeds/1", "scores/1", "classifies/1"} & info.capabilities.protocols == {"scores/1"}
        found = await engine.score("a house", TEXTS)
        expected = [logits(path, "a house", text).sigmoid().item() for text in TEXTS]
        assert [one.value for one in found] == pytest.approx(expected, abs=1e-3)
        assert [one.usage.prompt_tokens for one in found] == [8, 11, 8]
        assert await engine.score("a", []) == []
        with pytest.raises(ContextOverflow):
            await engine.score("a " * 40, ["a " * 30])
        with pytest.raises(UnsupportedFeature, match="classify"):
            await engine.classify([TextPrompt(text="a")])
    finally:
        await engine.stop()
