"""Transcriptions: a form to the endpoint, retried as any request, and end to end through our own server twice."""

import asyncio
import contextlib

import openai
import pytest
from endpoint_servers import QUICK, ScriptedServer, answer, scripted

import trunnion
from trunnion.errors import EngineDead, InternalError, InvalidArgument, Transient, UnsupportedFeature
from trunnion_http import HTTPSettings, PipelineModel, create_app, make_server
from trunnion_http.multipart import Form, FormShape, form_boundary
from trunnion_openai.capabilities import capabilities
from trunnion_openai.config import OpenAIConfig
from trunnion_openai.engine import OpenAIEngine

WAV = b"RIFF\x00\x00\x00\x00WAVE" + bytes(range(256)) * 100
HEARD = {"text": "so it goes", "usage": {"type": "tokens", "input_tokens": 5, "output_tokens": 3, "total_tokens": 8}}
FIELDS = ("model", "file", "language", "response_format")


def form_of(asked):
    form = Form(form_boundary(asked.headers["content-type"].encode()), FormShape(fields=FIELDS))
    form.feed(asked.body)
    return form


async def test_the_form_that_is_sent():
    async with scripted(answer(200, HEARD)) as (server, engine):
        found = await engine.transcribe(WAV, mime_type="audio/wav", language="en")
        await engine.transcribe(WAV, mime_type="audio/mp4")
    assert found.text == "so it goes"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (5, 3)
    first, second = server.asked
    assert (first.method, first.path) == ("POST", "/v1/audio/transcriptions")
    form = form_of(first)
    assert form.named() == "audio.wav"
    assert form.take() == WAV
    assert form.fields == {"model": engine._model, "language": "en", "response_format": "json"}
    assert b"Content-Type: audio/wav" in first.body
    assert form_of(second).fields == {"model": engine._model, "response_format": "json"}
    assert form_of(second).filename == "audio.m4a"


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"type": "duration", "seconds": 3}, 0), (None, 0), ({"type": "tokens", "input_tokens": 4}, 4)],
)
async def test_what_it_cost(usage, tokens):
    async with scripted(answer(200, {"text": "", "usage": usage})) as (_, engine):
        found = await engine.transcribe(WAV, mime_type="audio/wav")
    assert (found.text, found.usage.total_tokens) == ("", tokens)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (answer(200, {"error": {"message": "no"}}), InternalError),
        (answer(200, {}), InternalError),
        (answer(200, b"so it goes"), InternalError),
        (answer(200, {"text": 5}), InternalError),
        (answer(404, {"detail": "Not Found"}), UnsupportedFeature),
        (answer(501, {"error": {"message": "not here"}}), UnsupportedFeature),
        (answer(400, {"error": {"message": "no audio", "param": "file", "code": None}}), InvalidArgument),
        (answer(503, {}), Transient),
    ],
)
async def test_wrong_answers(script, kind):
    async with scripted(script) as (_, engine):
        with pytest.raises(kind) as caught:
            await engine.transcribe(WAV, mime_type="audio/wav")
        assert engine.load().running == 0
    if kind is UnsupportedFeature:
        assert (caught.value.param, caught.value.details["feature"]) == ("model", "transcribes/1")


async def test_a_failure_that_passes_is_sent_again_whole():
    left = [answer(503, {})]

    async def script(asked, writer):
        await (left.pop() if left else answer(200, HEARD))(asked, writer)

    async with scripted(script, max_retries=1) as (server, engine):
        assert (await engine.transcribe(WAV, mime_type="audio/wav")).text == "so it goes"
    assert [form_of(asked).take() for asked in server.asked] == [WAV, WAV]


async def test_another_address_is_asked_where_one_is_gone():
    async with ScriptedServer(answer(200, HEARD)) as server:
        gone = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = gone.sockets[0].getsockname()[1]
        gone.close()
        engine = OpenAIEngine("m", OpenAIConfig(**QUICK, base_url=[f"http://127.0.0.1:{port}/v1", server.url]))
        await engine.start()
        try:
            for _ in range(4):
                assert (await engine.transcribe(WAV, mime_type="audio/wav")).text == "so it goes"
        finally:
            await engine.stop()
    assert len(server.asked) == 4


async def test_who_gives_up_hangs_up_and_a_stopped_engine_takes_none():
    async def silent(asked, writer):
        await asyncio.sleep(60)

    async with scripted(silent) as (server, engine):
        task = asyncio.ensure_future(engine.transcribe(WAV, mime_type="audio/wav"))
        while not server.running:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not server.hung_up:
            await asyncio.sleep(0.01)
        assert engine.load().running == 0
        await engine.stop()
        with pytest.raises(EngineDead):
            await engine.transcribe(WAV, mime_type="audio/wav")


def test_every_dialect_is_asked():
    for dialect in ("openai", "vllm", "other"):
        assert "transcribes/1" in capabilities(dialect).protocols
        assert capabilities(dialect).reasons["transcribes/1"]


@contextlib.asynccontextmanager
async def served(engine, model, config):
    """Serve an engine over HTTP on this loop; yield the base URL."""
    async with trunnion.open_pipeline(trunnion.engine_spec(engine, model, config)) as pipeline:
        server = make_server(create_app([PipelineModel("m", pipeline)], HTTPSettings()), port=0)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        server.should_exit = True
        await serving


async def test_a_client_our_server_this_engine_and_our_server_again():
    async with contextlib.AsyncExitStack() as stack:
        near = await stack.enter_async_context(served("sim", "sim", {"unsupported": ["embeds/1"]}))
        far = await stack.enter_async_context(served("openai", "m", {"base_url": near}))
        direct = await stack.enter_async_context(openai.AsyncOpenAI(base_url=near, api_key="none", max_retries=0))
        relayed = await stack.enter_async_context(openai.AsyncOpenAI(base_url=far, api_key="none", max_retries=0))

        def ask(client):
            return client.audio.transcriptions.create(model="m", file=("a.wav", WAV), language="en")

        expected, found = await asyncio.gather(ask(direct), ask(relayed))
        assert expected == found
        assert found.usage.output_tokens == len(found.text.split())
        with pytest.raises(openai.BadRequestError) as caught:
            await relayed.audio.transcriptions.create(model="m", file=("a.txt", b"no audio"))
        assert caught.value.param == "file"


async def test_an_endpoint_whose_model_hears_nothing():
    async with contextlib.AsyncExitStack() as stack:
        near = await stack.enter_async_context(served("sim", "sim", {"unsupported": ["transcribes/1"]}))
        far = await stack.enter_async_context(served("openai", "m", {"base_url": near}))
        client = await stack.enter_async_context(openai.AsyncOpenAI(base_url=far, api_key="none", max_retries=0))
        with pytest.raises(openai.BadRequestError, match="transcribes no audio") as caught:
            await client.audio.transcriptions.create(model="m", file=("a.wav", WAV))
        assert (caught.value.param, caught.value.code) == ("model", "unsupported_feature")
