"""Labels and scores, from tiny sequence classification models with random weights."""

import json
import shutil

import pytest
from hf_lab import ask

from tiny_bert import TEXTS, logits, write
from trunnion.errors import ConfigError, ContextOverflow, UnsupportedFeature
from trunnion.requests import TextPrompt, TokensPrompt
from trunnion_transformers.config import TransformersConfig
from trunnion_transformers.engine import TransformersEngine

pytestmark = pytest.mark.engine

LABELS = ("bad", "fair", "good")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write(tmp_path_factory.mktemp("classifier"), LABELS)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("cross"), ["relevance"])


def changed(path, target, **values):
    shutil.copytree(path, target)
    held = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**held, **values}))
    return target


async def started(path, **values):
    engine = TransformersEngine(str(path), TransformersConfig(threads=1, gc_freeze=False, **values))
    return engine, await engine.start()


async def test_a_classifier_gives_what_the_library_gives(classifier):
    engine, info = await started(classifier)
    try:
        assert info.capabilities.protocols == {"classifies/1", "probes_health/1", "reports_load/1"}
        assert info.details["labels"] == list(LABELS)
        assert info.capabilities.support("sampling.temperature") == "no"
        prompts = [TextPrompt(text=text) for text in TEXTS]
        found = await engine.classify([*prompts, TokensPrompt(token_ids=(2, 4, 5, 6, 3))])
        for text, one in zip(TEXTS, found, strict=False):
            assert tuple(one.probabilities) == LABELS
            expected = logits(classifier, text).softmax(-1).tolist()
            assert list(one.probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert found[3].probabilities == pytest.approx(found[0].probabilities, abs=1e-5)
        assert [one.usage.prompt_tokens for one in found] == [5, 8, 5, 5]
        assert await engine.classify([]) == []
        with pytest.raises(ContextOverflow, match="65"):
            await engine.classify([TokensPrompt(token_ids=[5] * 65)])
        for asking in (engine.embed(prompts), engine.score("a", ["b"]), anext(engine.generate(ask()))):
            with pytest.raises(UnsupportedFeature):
                await asking
        assert engine.load().running == 0
    finally:
        await engine.stop()


async def test_a_cross_encoder_scores_pairs(cross_encoder):
    engine, info = await started(cross_encoder)
    try:
        assert info.capabilities.protocols == {"scores/1", "probes_health/1", "reports_load/1"}
        assert "cross-encoder" in info.capabilities.reasons["classifies/1"]
        scores = await engine.score("a house", TEXTS)
        expected = [logits(cross_encoder, "a house", text).sigmoid().item() for text in TEXTS]
        assert [score.value for score in scores] == pytest.approx(expected, abs=1e-5)
        assert len(set(expected)) == 3
        assert [score.usage.prompt_tokens for score in scores] == [8, 11, 8]
        swapped = await engine.score(TEXTS[0], ["a house"])
        assert swapped[0].value != pytest.approx(expected[0], abs=1e-4)  # the two texts are told apart
        with pytest.raises(ContextOverflow):
            await engine.score("a " * 40, ["a " * 30])
        with pytest.raises(UnsupportedFeature, match="classify"):
            await engine.classify([TextPrompt(text="a")])
    finally:
        await engine.stop()


async def test_scores_may_be_raw_and_labels_several(classifier, cross_encoder, tmp_path):
    held = {"activation_fn": "torch.nn.modules.linear.Identity"}
    raw, _ = await started(changed(cross_encoder, tmp_path / "raw", sentence_transformers=held))
    (score,) = await raw.score("a house", TEXTS[:1])
    await raw.stop()
    assert score.value == pytest.approx(logits(cross_encoder, "a house", TEXTS[0]).item(), abs=1e-5)
    several, _ = await started(
        changed(classifier, tmp_path / "several", problem_type="multi_label_classification"), max_requests_per_batch=1
    )
    (one,) = await several.classify([TextPrompt(text=TEXTS[0])])
    await several.stop()
    expected = logits(classifier, TEXTS[0]).sigmoid().tolist()
    assert list(one.probabilities.values()) == pytest.approx(expected, abs=1e-5)


async def test_runner_decides_what_a_model_is_for(classifier):
    engine, info = await started(classifier, runner="embed")
    await engine.stop()
    assert "embeds/1" in info.capabilities.protocols
    with pytest.raises(ConfigError, match="classifies"):
        await started(classifier, adapters={"a": "/a"})
