"""Scores and labels of endpoints that have vLLM's paths for them; a clear refusal from those that have not."""

import json

import pytest
from endpoint_servers import answer, http, scripted

from trunnion import MessagesPrompt, TextPrompt, TokensPrompt
from trunnion.errors import InternalError, InvalidArgument, ModelNotFound, Transient, UnsupportedFeature
from trunnion_openai.capabilities import capabilities


async def scores(asked, writer):
    texts = asked.body["text_2"]
    data = [{"index": i, "object": "score", "score": len(text) / 10} for i, text in enumerate(texts)]
    usage = {"prompt_tokens": sum(map(len, texts)), "total_tokens": 0}
    writer.write(http(200, json.dumps({"data": data[::-1], "usage": usage}).encode()))
    await writer.drain()


async def labels(asked, writer):
    data = [{"index": i, "label": "good", "probs": [0.25, 0.75]} for i in range(len(asked.body["input"]))]
    writer.write(http(200, json.dumps({"data": data, "usage": {"prompt_tokens": 6}}).encode()))
    await writer.drain()


async def test_scores_in_order_and_in_batches():
    async with scripted(scores, embedding_batch=2) as (server, engine):
        found = await engine.score("q", ["a", "abc", "ab"])
        assert await engine.score("q", []) == []
    assert [(one.value, one.usage.prompt_tokens) for one in found] == [(0.1, 1), (0.3, 3), (0.2, 2)]
    assert {asked.path for asked in server.asked} == {"/v1/score"}
    assert sorted((asked.body["text_1"], len(asked.body["text_2"])) for asked in server.asked) == [("q", 1), ("q", 2)]


async def test_labels_are_named_as_far_as_the_endpoint_names_them():
    async with scripted(labels) as (server, engine):
        text, tokens = await engine.classify([TextPrompt(text="a"), TokensPrompt(token_ids=(1, 2))])
    assert text.probabilities == tokens.probabilities == {"LABEL_0": 0.25, "good": 0.75}
    assert text.usage.prompt_tokens == 6
    assert {asked.path for asked in server.asked} == {"/classify"}  # beside /v1, as vLLM has it
    named = {"data": [{"probs": [0.5, 0.5], "label": "x", "labels": ["x", "y"]}]}
    async with scripted(answer(200, named)) as (_, engine):
        (one,) = await engine.classify([TextPrompt(text="a")])
    assert one.probabilities == {"x": 0.5, "y": 0.5}


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (answer(404, {"detail": "Not Found"}), UnsupportedFeature),
        (answer(405, {"detail": "Method Not Allowed"}), UnsupportedFeature),
        (answer(404, {"error": {"message": "the model does not exist", "code": "model_not_found"}}), ModelNotFound),
        (answer(400, {"error": {"message": "The model does not support Score API"}}), UnsupportedFeature),
        (answer(400, {"error": {"message": "bad"}}), InvalidArgument),
        (answer(200, {"data": []}), InternalError),
        (answer(200, {"error": {"message": "no"}}), InternalError),
    ],
)
async def test_what_the_endpoint_does_not_do(script, kind):
    async with scripted(script) as (_, engine):
        for asking in (engine.score("q", ["a"]), engine.classify([TextPrompt(text="a")])):
            with pytest.raises(kind) as caught:
                await asking
            assert type(caught.value) is kind


async def test_a_missing_path_names_the_protocol():
    async with scripted(answer(404, {"detail": "Not Found"})) as (_, engine):
        with pytest.raises(UnsupportedFeature, match="no /score") as caught:
            await engine.score("q", ["a"])
    assert (caught.value.param, caught.value.details["feature"]) == ("model", "scores/1")


async def test_conversations_have_no_labels():
    async with scripted(labels) as (_, engine):
        with pytest.raises(UnsupportedFeature, match="classification API"):
            await engine.classify([MessagesPrompt(messages=())])


async def test_a_failure_that_passes_is_sent_again():
    left = [answer(503, {})]

    async def script(asked, writer):
        await (left.pop() if left else scores)(asked, writer)

    async with scripted(script, max_retries=1) as (server, engine):
        assert len(await engine.score("q", ["a"])) == 1
        assert len(server.asked) == 2
    async with scripted(answer(503, {}), max_retries=0) as (_, engine):
        with pytest.raises(Transient):
            await engine.score("q", ["a"])


def test_openai_itself_has_neither():
    assert not {"scores/1", "classifies/1"} & capabilities("openai").protocols
    for dialect in ("vllm", "other"):
        assert capabilities(dialect).protocols >= {"scores/1", "classifies/1"}
