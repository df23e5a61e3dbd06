"""Embeddings, from tiny encoders with random weights."""

import asyncio
import json
import math

import pytest
from hf_lab import ask

from tiny_bert import TEXTS, write
from trunnion.errors import Cancelled, ConfigError, ContextOverflow, InternalError, InvalidArgument, UnsupportedFeature
from trunnion.requests import TextPrompt, TokensPrompt
from trunnion_transformers.config import TransformersConfig
from trunnion_transformers.engine import TransformersEngine

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("encoder"))


async def embedded(path, texts=TEXTS, dimensions=None, **values):
    engine = TransformersEngine(str(path), TransformersConfig(threads=1, gc_freeze=False, **values))
    info = await engine.start()
    try:
        prompts = [TextPrompt(text=text) for text in texts]
        return info, [list(e.vector) for e in await engine.embed(prompts, dimensions=dimensions)]
    finally:
        await engine.stop()


def reference(path, text, mode):
    """Return what the library gives for one text alone, pooled by hand and of length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    with torch.inference_mode():
        hidden = (
            AutoModel.from_pretrained(path)
            .eval()(**AutoTokenizer.from_pretrained(path)(text, return_tensors="pt"))
            .last_hidden_state[0]
        )
    vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "max": hidden.amax(0)}[mode]
    return (vector / vector.norm()).tolist()


@pytest.mark.parametrize("mode", ["mean", "cls", "last", "max"])
async def test_padded_batches_give_what_each_text_gives_alone(encoder, mode):
    _, vectors = await embedded(encoder, pooling=mode)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert vector == pytest.approx(reference(encoder, text, mode), abs=1e-5)


async def test_an_encoder_embeds_and_does_not_generate(encoder):
    engine = TransformersEngine(str(encoder), TransformersConfig(gc_freeze=False, max_requests_per_batch=2))
    info = await engine.start()
    assert (info.context_length, info.concurrency, info.details["width"]) == (64, 2, 16)
    assert info.capabilities.protocols == {"embeds/1", "scores/1", "probes_health/1", "reports_load/1"}
    assert info.capabilities.support("sampling.temperature") == "no"
    texts = [TextPrompt(text=text) for text in TEXTS]
    one, many = await asyncio.gather(engine.embed([texts[0]]), engine.embed([*texts, texts[0]]))
    assert many[3].vector == pytest.approx(one[0].vector, abs=1e-5)
    assert one[0].vector != pytest.approx(many[2].vector, abs=1e-2)
    assert [e.usage.prompt_tokens for e in many] == [5, 8, 5, 5]
    assert math.isclose(sum(x * x for x in one[0].vector), 1.0, rel_tol=1e-4)
    assert await engine.embed([]) == []
    with pytest.raises(ContextOverflow, match="65"):
        await engine.embed([*texts, TokensPrompt(token_ids=[5] * 65)])
    scores = await engine.score(TEXTS[0], [TEXTS[0], TEXTS[2]])
    apart = sum(a * b for a, b in zip(one[0].vector, many[2].vector, strict=True))
    assert [score.value for score in scores] == pytest.approx([1.0, apart], abs=1e-5)
    assert [score.usage.prompt_tokens for score in scores] == [10, 5]
    assert await engine.score("a", []) == []
    with pytest.raises(UnsupportedFeature, match="classify"):
        await engine.classify(texts)
    with pytest.raises(UnsupportedFeature):
        await engine.embed(texts, adapter="a")
    with pytest.raises(UnsupportedFeature):
        await anext(engine.generate(ask()))
    await engine.check_health()
    assert engine.load().running == 0
    await engine.stop()


async def test_dimensions_cut_and_scale_again(encoder):
    _, whole = await embedded(encoder)
    _, cut = await embedded(encoder, dimensions=4)
    length = math.sqrt(sum(x * x for x in whole[0][:4]))
    assert cut[0] == pytest.approx([x / length for x in whole[0][:4]], abs=1e-5)
    for wrong in (0, 17):
        with pytest.raises(InvalidArgument) as caught:
            await embedded(encoder, dimensions=wrong)
        assert caught.value.param == "dimensions"


async def test_length_one_is_a_setting(encoder):
    _, vectors = await embedded(encoder, normalize=False)
    assert sum(x * x for x in vectors[0]) != pytest.approx(1.0, abs=1e-2)


async def test_a_model_may_name_its_dimensions(encoder, tmp_path):
    import shutil

    path = shutil.copytree(encoder, tmp_path / "nested")
    held = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**held, "matryoshka_dimensions": [4, 8]}))
    assert len((await embedded(path, dimensions=8))[1][0]) == 8
    with pytest.raises(InvalidArgument, match="4, 8"):
        await embedded(path, dimensions=5)


async def test_a_causal_model_embeds_where_asked_to_and_adapters_are_refused(model, adapters):
    info, vectors = await embedded(model, runner="embed", dtype="float32", pooling="last")
    assert info.details["runner"] == "embed"
    assert len(vectors[0]) == 256
    with pytest.raises(ConfigError, match="embeds"):
        await embedded(model, runner="embed", adapters=adapters)


async def test_calls_go_through_the_model_together_and_none_waits_for_all_of_another(encoder):
    engine = TransformersEngine(str(encoder), TransformersConfig(threads=1, gc_freeze=False, max_requests_per_batch=4))
    await engine.start()
    batches, run = [], engine._runner._run

    def counted(inputs, finish):
        batches.append(len(inputs))
        return run(inputs, finish)

    engine._runner._run = counted
    try:
        alone = [await engine.embed([TextPrompt(text=text)]) for text in TEXTS]
        batches.clear()
        together = await asyncio.gather(*(engine.embed([TextPrompt(text=TEXTS[i % 3])]) for i in range(12)))
        assert len(batches) <= 4
        for place, (one,) in enumerate(together):
            assert one.vector == pytest.approx(alone[place % 3][0].vector, abs=1e-5)
        ended = []

        async def ask(name, count, dimensions):
            await engine.embed([TextPrompt(text="a red house")] * count, dimensions=dimensions)
            ended.append(name)

        await asyncio.gather(ask("large", 200, None), ask("small", 1, None), ask("other", 1, 4))
        assert ended[-1] == "large"
        given_up = asyncio.ensure_future(engine.embed([TextPrompt(text="a red house")] * 200))
        await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert len((await engine.embed([TextPrompt(text="a")]))[0].vector) == 16
        engine._runner._run = lambda inputs, finish: 1 / 0
        with pytest.raises(InternalError, match="division"):
            await engine.embed([TextPrompt(text="a")])
        engine._runner._run = run
        last = [asyncio.ensure_future(engine.embed([TextPrompt(text="a red house")] * 100)) for _ in range(3)]
        await asyncio.sleep(0)
    finally:
        await engine.stop()
    for failure in await asyncio.wait_for(asyncio.gather(*last, return_exceptions=True), 30):
        assert isinstance(failure, Cancelled | list)
