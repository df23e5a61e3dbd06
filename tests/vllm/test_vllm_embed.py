"""Embeddings, with the pooling runner over the demo model."""

import math

import pytest
from vllm_settings import SETTINGS

from trunnion.errors import ContextOverflow, InvalidArgument, TrunnionError, UnsupportedFeature
from trunnion.requests import GenerateRequest, TextPrompt, TokensPrompt
from trunnion_vllm.config import VLLMConfig

pytestmark = pytest.mark.engine


async def test_a_pooling_model_embeds(vllm_environment, model):
    from trunnion_vllm.engine import VLLMEngine

    engine = VLLMEngine(model, VLLMConfig(**SETTINGS, runner="pooling", gc_freeze=False))
    info = await engine.start()
    try:
        assert {"embeds/1", "scores/1", "classifies/1"} & info.capabilities.protocols == {"embeds/1", "scores/1"}
        assert info.capabilities.support("sampling.temperature") == "no"
        prompts = [TextPrompt(text="a red house"), TextPrompt(text="a red house"), TextPrompt(text="7 times 8")]
        same, again, other = await engine.embed(prompts)
        assert same.usage.prompt_tokens > 0
        assert math.isclose(sum(x * x for x in same.vector), 1.0, rel_tol=1e-3)
        assert same.vector == pytest.approx(again.vector, abs=1e-5)
        assert other.vector != pytest.approx(same.vector, abs=1e-2)
        scores = await engine.score("a red house", ["a red house", "7 times 8"])
        apart = sum(a * b for a, b in zip(same.vector, other.vector, strict=True))
        assert [one.value for one in scores] == pytest.approx([1.0, apart], abs=1e-3)
        with pytest.raises(UnsupportedFeature, match="classify"):
            await engine.classify(prompts)
        with pytest.raises(ContextOverflow, match="600"):
            await engine.embed([*prompts, TokensPrompt(token_ids=[5] * 600)])
        with pytest.raises(InvalidArgument):
            await engine.embed(prompts, dimensions=3)
        with pytest.raises(TrunnionError):
            await anext(engine.generate(GenerateRequest(prompt=prompts[0])))
        assert engine.load().running == 0
    finally:
        await engine.stop()
