"""Media on their way through a pipeline: who gets bytes, who gets URLs, and who is refused."""

import asyncio
import contextlib
import pickle
import time

import pytest
import pytest_asyncio
from fake_engines import FakeEngine, event, registry
from media_lab import GIF, MP4, PNG, WAV, answer, asked, data_url, image, media_server

import trunnion as t
from trunnion.errors import DeadlineExceeded, InvalidArgument, UnsupportedFeature
from trunnion.media_policy import MediaPolicy
from trunnion.rows import row_to_request

PLACE = "messages[1].content[0].image_url.url"
PICTURE = t.MediaPart(type="image", data=PNG, mime_type="image/png")
FACTS = {"yes": ("sampling.*", "media.*"), "prompts": ("token_ids",), "media_prompts": ("messages", "token_ids")}
LOCAL = t.Capabilities.of(**FACTS)
REMOTE = t.Capabilities.of(**FACTS, media_urls=True)


@pytest_asyncio.fixture
async def server():
    async with media_server() as served:
        served.add("/a.png", answer(PNG, "Content-Type: text/plain"))
        yield served


@contextlib.asynccontextmanager
async def opened(capabilities=LOCAL, **settings):
    """Open a pipeline with media settings over an engine that remembers what it was asked."""
    engine = FakeEngine(capabilities=capabilities)
    spec = t.PipelineSpec(engine=t.EngineSpec(engine="fake"), media=MediaPolicy(**settings))
    async with t.open_pipeline(spec, registry=registry(engine)) as pipeline:
        pipeline.requests = engine.requests
        yield pipeline


def allow(server, **settings):
    return {"allowed_hosts": [server.host], "allow_private_addresses": True, **settings}


def seeing(*parts, **fields):
    return t.GenerateRequest(prompt=t.MessagesPrompt(messages=asked(*parts)), **fields)


async def refused(pipeline, request, error=InvalidArgument):
    with pytest.raises(error) as caught:
        await pipeline.complete(request)
    assert pipeline.requests == []
    return caught.value


async def test_messages_alone_are_enough():
    async with opened() as pipeline:
        await pipeline.complete(seeing(image(data_url(PNG)), {"type": "image", "image": GIF}))
        (request,) = pipeline.requests
        assert request.media == (PICTURE, t.MediaPart(type="image", data=GIF, mime_type="image/gif"))
        assert request.prompt.messages == asked(image(data_url(PNG)), image(data_url(GIF, "image/gif")))
        assert pipeline.plan(seeing(image(data_url(PNG)))).request_stages == ()


async def test_a_batch_and_a_row_take_the_same_way():
    async with opened() as pipeline:
        row = {"messages": asked({"type": "image", "image": PNG})}
        bad = seeing(image("data:image/png;base64,@"))
        first, second = pipeline.prepare([row_to_request(row), bad])
        assert second.param == PLACE
        await pipeline.complete(first)
        assert pipeline.requests[0].media == (PICTURE,)
        assert pipeline.requests[0].prompt.messages == asked(image(data_url(PNG)))


async def test_urls_are_refused_by_default_and_the_engine_sees_none(server):
    async with opened() as pipeline:
        error = await refused(pipeline, seeing(image(f"{server.url}/a.png")), UnsupportedFeature)
        assert error.param == PLACE
        error = await refused(pipeline, t.GenerateRequest(
            prompt=t.TokensPrompt(token_ids=(1,)), media=(t.MediaPart(type="image", url=f"{server.url}/a.png"),)
        ), UnsupportedFeature)  # fmt: skip
        assert error.param == "media[0].url"
    assert server.asked == []


async def test_an_allowed_url_becomes_data(server):
    url = f"{server.url}/a.png"
    async with opened(**allow(server)) as pipeline:
        await pipeline.complete(seeing(image(url), image(data_url(GIF, "image/gif"))))
        (request,) = pipeline.requests
        assert request.media == (PICTURE, t.MediaPart(type="image", data=GIF, mime_type="image/gif"))
        assert request.prompt.messages == asked(image(data_url(PNG)), image(data_url(GIF, "image/gif")))
        beside = t.GenerateRequest(
            prompt=t.TokensPrompt(token_ids=(1,)), media=(t.MediaPart(type="image", url=url),), delivery="final"
        )
        await pipeline.complete(beside)
        assert pipeline.requests[1] == beside.with_(media=(PICTURE,))


async def test_messages_cannot_say_another_url_than_the_media(server):
    """What the request lists is what counts; a place in the messages may not smuggle another one in."""
    async with opened() as pipeline:
        request = seeing(image("http://169.254.169.254/")).with_(media=(PICTURE,))
        await pipeline.complete(request)
        assert pipeline.requests[0].prompt.messages == asked(image(data_url(PNG)))


async def test_an_engine_whose_media_are_fetched_elsewhere_gets_urls(server):
    async with opened(REMOTE) as pipeline:
        await pipeline.complete(seeing(image("https://example.com/a.png"), {"type": "image", "image": PNG}))
        (request,) = pipeline.requests
        assert request.media == (t.MediaPart(type="image", url="https://example.com/a.png"), PICTURE)
        assert request.prompt.messages == asked(image("https://example.com/a.png"), image(data_url(PNG)))
        pipeline.requests.clear()
        listed = (t.MediaPart(type="image", url="file:///etc/passwd"),)
        error = await refused(pipeline, t.GenerateRequest(prompt=t.TokensPrompt(token_ids=(1,)), media=listed))
        assert error.param == "media[0].url"


async def test_capabilities_keep_whether_urls_are_taken():
    assert not LOCAL.media_urls
    assert pickle.loads(pickle.dumps(REMOTE)).media_urls
    assert REMOTE.narrowed(media__video=t.Support.NO).media_urls


@pytest.mark.parametrize("capabilities", [LOCAL, REMOTE])
async def test_sizes_are_limited(server, capabilities):
    async with opened(capabilities, **allow(server, max_bytes=len(PNG) - 1)) as pipeline:
        error = await refused(pipeline, seeing({"type": "image", "image": PNG}))
        assert error.param == "messages[1].content[0].image"
        error = await refused(pipeline, seeing(image(data_url(PNG))))
        assert error.param == PLACE
        assert f"allow {len(PNG) - 1}" in error.message
    async with opened(capabilities, max_bytes=len(PNG)) as pipeline:
        await pipeline.complete(seeing(image(data_url(PNG))))
        assert len(pipeline.requests) == 1


async def test_what_is_fetched_is_limited(server):
    url = f"{server.url}/a.png"
    async with opened(**allow(server, max_bytes=len(PNG) - 1)) as pipeline:
        assert (await refused(pipeline, seeing(image(url)))).param == PLACE
    server.asked.clear()
    async with opened(**allow(server, max_urls=2)) as pipeline:
        assert (await refused(pipeline, seeing(*[image(url)] * 3))).param == "media"
        assert server.asked == []
        await pipeline.complete(seeing(image(url), image(url), image(data_url(PNG))))
        assert len(server.asked) == 2


async def test_the_content_says_what_was_fetched(server):
    for path, body in (("/text", b"<html>"), ("/sound", WAV), ("/film", MP4), ("/empty", b"")):
        server.add(path, answer(body, "Content-Type: image/png"))
    async with opened(**allow(server)) as pipeline:
        for path in ("/text", "/sound", "/film", "/empty"):
            assert (await refused(pipeline, seeing(image(server.url + path)))).param == PLACE
        part = {"type": "audio_url", "audio_url": {"url": f"{server.url}/film"}}
        assert (await refused(pipeline, seeing(part))).param == "messages[1].content[0].audio_url.url"
        await pipeline.complete(seeing({"type": "video_url", "video_url": {"url": f"{server.url}/film"}}))
        await pipeline.complete(seeing({"type": "audio_url", "audio_url": {"url": f"{server.url}/sound"}}))
        kinds = [request.media[0].mime_type for request in pipeline.requests]
        assert kinds == ["video/mp4", "audio/wav"]


@pytest.mark.parametrize(
    "part",
    [
        t.MediaPart(type="image"), t.MediaPart(type="image", data=b""), t.MediaPart(type="image", data=b"text"),
        t.MediaPart(type="image", data=PNG, url="http://example.com/"),
        t.MediaPart(type="image", url="data:image/png;base64,@"),
    ],
)  # fmt: skip
async def test_what_a_request_lists_is_checked_too(part):
    async with opened() as pipeline:
        error = await refused(pipeline, t.GenerateRequest(prompt=t.TokensPrompt(token_ids=(1,)), media=(part,)))
        assert error.param in ("media[0].url", "media[0].data")


async def test_the_deadline_holds_while_media_are_fetched(server):
    async def silent(writer):
        await asyncio.sleep(60)

    url = server.add("/silent", silent)
    async with opened(**allow(server)) as pipeline:
        await refused(pipeline, seeing(image(url), deadline=time.time() + 0.2), DeadlineExceeded)
        await refused(pipeline, seeing(image(url), deadline=time.time() - 1), DeadlineExceeded)


async def test_who_gives_up_or_fails_leaves_no_fetch_behind(server):
    gone = []

    async def silent(writer):
        try:
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            gone.append(1)

    url = server.add("/silent", silent)
    server.add("/no", answer(b"", status="404 Not Found"))
    async with opened(**allow(server)) as pipeline:
        asking = asyncio.ensure_future(pipeline.complete(seeing(image(url))))
        while not server.now:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await refused(pipeline, seeing(image(url), image(f"{server.url}/no")))
        while server.now:
            await asyncio.sleep(0.01)
    assert gone


TEXT_ONLY = t.Capabilities.of(yes=("sampling.*",), no=("media.*",), prompts=("messages", "text"))


@pytest.mark.parametrize("part", [image(data_url(PNG)), image("http://example.com/"), {"type": "image", "image": PNG}])
async def test_engines_without_media_refuse_by_name(part):
    async with opened(TEXT_ONLY) as pipeline:
        error = await refused(pipeline, seeing(part), UnsupportedFeature)
        assert error.param == "media.image"


@pytest.mark.parametrize("part", [image(data_url(PNG)), image("http://example.com/"), {"type": "image", "image": PNG}])
async def test_the_simulated_engine_takes_no_images(part):
    async with t.open_pipeline(t.engine_spec("sim")) as pipeline:
        for request in (seeing(part), row_to_request({"messages": asked(part)})):
            with pytest.raises(UnsupportedFeature) as caught:
                await pipeline.complete(request)
            assert caught.value.param == "media.image"
            assert "sim" in caught.value.message


def test_every_engine_here_says_what_it_does_with_media():
    takes, urls = {}, {}
    for record in t.Registry(t.PluginPolicy()).plugins():
        if record.kind == "engine" and record.distribution == "trunnion":
            takes[record.name] = record.plugin.capabilities.support("media.image")
            urls[record.name] = record.plugin.capabilities.media_urls
    assert takes == {"openai": "unknown", "sim": "no", "transformers": "no", "vllm": "yes"}
    assert urls == {"openai": True, "sim": False, "transformers": False, "vllm": False}


def test_plain_requests_pay_nothing():
    """No gate, no fetcher, no copy: the request is the one that was made."""

    async def run():
        engine = FakeEngine((event("x", finish="stop", usage=1),))
        async with t.open_pipeline(t.EngineSpec(engine="fake"), registry=registry(engine)) as pipeline:
            request = t.GenerateRequest(prompt=t.TokensPrompt(token_ids=(1,)))
            await pipeline.complete(request)
            assert engine.requests[0] is request

    asyncio.run(run())
