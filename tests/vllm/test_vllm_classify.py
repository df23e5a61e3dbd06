"""Labels and cross-encoders' scores, with the pooling runner over tiny models with random weights."""

import pytest
from vllm_settings import SETTINGS

from tiny_bert import TEXTS, logits, write
from trunnion.errors import ContextOverflow, UnsupportedFeature
from trunnion.requests import TextPrompt
from trunnion_vllm.config import VLLMConfig

pytestmark = pytest.mark.engine
SHAPE = {"hidden": 64, "inner": 64}


async def started(path):
    from trunnion_vllm.engine import VLLMEngine

    settings = {**SETTINGS, "max_model_len": 64, "dtype": "float32", "gc_freeze": False}
    engine = VLLMEngine(str(path), VLLMConfig(**settings))
    return engine, await engine.start()


async def test_a_classifier_gives_its_labels(vllm_environment, tmp_path):
    path = write(tmp_path, ["bad", "fair", "good"], **SHAPE)
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
    path = write(tmp_path, ["relevance"], **SHAPE)
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
