"""Images on their way to an endpoint: from a row, a program and our own HTTP surface, to OpenAI's wire format."""

import asyncio
import base64
import json

import httpx
import pytest
import pytest_asyncio
from endpoint_servers import QUICK, WHOLE, ScriptedServer, http

import trunnion
from trunnion import GenerateRequest, LoopThread, MediaPart, MessagesPrompt, Pipeline
from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.rows import row_to_request
from trunnion_http import PipelineModel, create_app, make_server

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()
URL = "https://images.example/a.png"
TEXT = {"type": "text", "text": "what is this?"}


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


async def whole(_, writer):
    writer.write(http(200, json.dumps(WHOLE).encode()))
    await writer.drain()


def asked(*parts):
    return [{"role": "system", "content": "You see."}, {"role": "user", "content": [*parts, TEXT]}]


@pytest_asyncio.fixture
async def server():
    async with ScriptedServer(whole) as served:
        yield served


def opened(server, **config):
    return trunnion.open_pipeline(trunnion.engine_spec("openai", "m", {"base_url": server.url, **QUICK, **config}))


async def test_a_rows_bytes_become_a_data_url(server):
    async with opened(server) as pipeline:
        row = {"messages": asked({"type": "image", "image": PNG}, image(URL), image(DATA))}
        answer = await pipeline.complete(row_to_request(row))
    assert answer.choices[0].text == "Hello"
    (request,) = server.asked
    assert request.path == "/v1/chat/completions"
    assert request.body["messages"] == asked(image(DATA), image(URL), image(DATA))


async def test_bytes_beside_messages_come_with_the_last_users(server):
    async with opened(server) as pipeline:
        prompt = MessagesPrompt(messages=[{"role": "user", "content": "what is this?"}])
        media = (MediaPart(type="image", data=PNG), MediaPart(type="image", url=URL))
        await pipeline.complete(GenerateRequest(prompt=prompt, media=media, delivery="final"))
    assert server.asked[0].body["messages"] == [{"role": "user", "content": [image(DATA), image(URL), TEXT]}]


async def test_a_url_goes_to_the_endpoint_as_it_is_and_nobody_here_asks_for_it(server):
    part = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{server.port}/a.png", "detail": "low"}}
    async with opened(server) as pipeline:
        await pipeline.complete(row_to_request({"messages": asked(part)}))
    assert [request.path for request in server.asked] == ["/v1/chat/completions"]
    assert server.asked[0].body["messages"] == asked(part)


async def test_wrong_parts_are_not_sent(server):
    async with opened(server) as pipeline:
        for part in (image("data:image/png;base64,@"), image("file:///etc/passwd"), {"type": "image", "image": b"?"}):
            request = GenerateRequest(prompt=MessagesPrompt(messages=asked(part)))
            with pytest.raises(InvalidArgument) as caught:
                await pipeline.complete(request)
            assert caught.value.param.startswith("messages[1].content[0].image")
    assert server.asked == []


async def test_the_completions_api_has_no_images(server):
    async with opened(server, api="completions") as pipeline:
        with pytest.raises(UnsupportedFeature) as caught:
            await pipeline.complete(row_to_request({"messages": asked(image(DATA))}))
        assert caught.value.param == "media.image"
    assert server.asked == []


def test_an_image_passes_our_own_surface():
    """A client sends it to our HTTP surface, whose engine is another endpoint."""
    thread = LoopThread("surface")
    behind = ScriptedServer(whole)

    async def start():
        await behind.__aenter__()
        pipeline = Pipeline(trunnion.engine_spec("openai", "m", {"base_url": behind.url, **QUICK}))
        await pipeline.start()
        server = make_server(create_app([PipelineModel("m", pipeline)]), port=0)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        return pipeline, server, serving

    async def stop():
        server.should_exit = True
        await serving
        await pipeline.stop()
        await behind.__aexit__()

    pipeline, server, serving = thread.run(start())
    try:
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/chat/completions"
        body = {"model": "m", "messages": asked(image(DATA), image(URL))}
        answered = httpx.post(url, json=body, timeout=20)
        assert answered.json()["choices"][0]["message"]["content"] == "Hello"
        assert behind.asked[0].body["messages"] == body["messages"]
        refused = httpx.post(url, json={"model": "m", "messages": asked(image(DATA[:-3]))}, timeout=20)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "messages[1].content[0].image_url.url"
        assert len(behind.asked) == 1
    finally:
        thread.run(stop())
        thread.close()
