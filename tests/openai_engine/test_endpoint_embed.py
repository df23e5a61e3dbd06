"""Embeddings: in batches, in order, with the endpoint's count of tokens shared out."""

import json

import pytest
from endpoint_servers import answer, http, scripted

from trunnion import (
    Classifies,
    Embeds,
    MessagesPrompt,
    ProbesHealth,
    Relays,
    ReportsLoad,
    Scores,
    TextPrompt,
    TokensPrompt,
    Transcribes,
)
from trunnion.errors import InternalError, NotFound, UnsupportedFeature
from trunnion_openai.capabilities import UPPER_BOUND
from trunnion_openai.engine import OpenAIEngine


async def vectors(asked, writer):
    values = asked.body["input"]
    data = [{"index": i, "embedding": [float(len(value)), 0.5]} for i, value in enumerate(values)]
    usage = {"prompt_tokens": sum(map(len, values)), "total_tokens": 0}
    writer.write(http(200, json.dumps({"data": data[::-1], "usage": usage}).encode()))
    await writer.drain()


async def test_in_order_and_in_batches():
    prompts = [TextPrompt(text="a"), TokensPrompt(token_ids=(1, 2)), TextPrompt(text="abc"), TextPrompt(text="abcd")]
    async with scripted(vectors, embedding_batch=2) as (server, engine):
        found = await engine.embed(prompts, dimensions=2, adapter="a")
    assert [one.vector[0] for one in found] == [1.0, 2.0, 3.0, 4.0]
    assert [one.usage.prompt_tokens for one in found] == [1, 2, 3, 4]
    assert sorted(len(asked.body["input"]) for asked in server.asked) == [1, 1, 2]
    assert {(asked.body["model"], asked.body["dimensions"]) for asked in server.asked} == {("a", 2)}
    assert {asked.path for asked in server.asked} == {"/v1/embeddings"}


async def test_nothing_to_embed():
    async with scripted(vectors) as (server, engine):
        assert await engine.embed([]) == []
        assert server.asked == []


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (answer(404, {"detail": "Not Found"}), NotFound),
        (answer(200, {"data": []}), InternalError),
        (answer(200, {"data": [{"embedding": "AAAA"}]}), InternalError),
        (answer(200, {"error": {"message": "no"}}), InternalError),
    ],
)
async def test_wrong_answers(script, kind):
    async with scripted(script) as (_, engine):
        with pytest.raises(kind):
            await engine.embed([TextPrompt(text="a")])


async def test_conversations_have_no_embedding():
    async with scripted(vectors) as (_, engine):
        with pytest.raises(UnsupportedFeature):
            await engine.embed([MessagesPrompt(messages=())])


async def test_it_is_sent_again():
    left = [answer(503, {})]

    async def script(asked, writer):
        await (left.pop() if left else vectors)(asked, writer)

    async with scripted(script, max_retries=1) as (server, engine):
        assert len(await engine.embed([TextPrompt(text="a")])) == 1
        assert len(server.asked) == 2


def test_the_protocols_are_those_declared():
    engine = OpenAIEngine("m")
    found = {
        name
        for name, protocol in {
            "embeds/1": Embeds,
            "scores/1": Scores,
            "classifies/1": Classifies,
            "transcribes/1": Transcribes,
            "relays/1": Relays,
            "reports_load/1": ReportsLoad,
            "probes_health/1": ProbesHealth,
        }.items()
        if isinstance(engine, protocol)
    }
    assert found == set(UPPER_BOUND.protocols)
