"""Images reach a real vision model of random weights: what they show changes what it says."""

import asyncio
import base64
import http.server
import io
import json
import threading

import pytest
import pytest_asyncio
from tiny_vision import QUERIES, make
from vllm_settings import SETTINGS

import trunnion
from trunnion.completion import collect
from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.media import wire_part
from trunnion.media_policy import MediaPolicy
from trunnion.requests import GenerateRequest, MediaPart, MessagesPrompt, SamplingParams, TextPrompt, TokensPrompt
from trunnion.rows import RowOptions, completion_to_columns, row_to_request

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

ASKED = "<|im_start|>user\nwhat is this?<|im_end|>\n<|im_start|>assistant\n"
TEXT = {"type": "text", "text": "what is this?"}
GREEDY = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True, "logprobs": 3}


def picture(colour, kind="PNG"):
    """Return the bytes of an image of one colour."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("RGB", (40, 28), colour).save(file, format=kind)
        return file.getvalue()


def part_of(colour):
    return MediaPart(type="image", data=picture(colour), mime_type="image/png")


def data_url(colour):
    return "data:image/png;base64," + base64.b64encode(picture(colour)).decode()


def by_url(url):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture(scope="module")
def images():
    """Serve images over HTTP on this machine; yield the server, which counts what it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.path == "/round":
                self.send_response(302)
                self.send_header("Location", "/red.png")
                self.end_headers()
                return
            body = picture(self.path[1:].partition(".")[0])
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seeing(vllm_environment, model, images, tmp_path_factory):
    """Open a pipeline on the vision model, which may fetch from the server of images alone."""
    path = make(tmp_path_factory.mktemp("vision") / "tiny", model)
    config = {**SETTINGS, "engine_kwargs": {}, "max_model_len": 256, "gc_freeze": False}
    spec = trunnion.PipelineSpec(
        engine=trunnion.engine_spec("vllm", path, config),
        media=MediaPolicy(allowed_hosts=[f"127.0.0.1:{images.server_port}"], allow_private_addresses=True),
    )
    async with trunnion.open_pipeline(spec) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def ids(seeing):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(seeing.info.model).encode(ASKED, add_special_tokens=False)


async def answer(runner, prompt, *media):
    return await collect(
        runner.generate(GenerateRequest(prompt=prompt, media=media, sampling=SamplingParams(**GREEDY)))
    )


class Said:
    """Hold tokens and log probabilities; equal up to what another place in the batch may change."""

    def __init__(self, token_ids, logprobs):
        self.token_ids, self.logprobs = list(token_ids), logprobs

    def __eq__(self, other):
        near = pytest.approx(other.logprobs, abs=1e-3)
        return self.token_ids == other.token_ids and self.logprobs == near

    __hash__ = None


def said(completion):
    """Return what was answered."""
    (choice,) = completion.choices
    return Said(choice.token_ids, [one.logprob for one in choice.logprobs])


def conversation(*parts):
    return [{"role": "user", "content": [*parts, TEXT]}]


async def test_the_engine_sees(seeing, ids):
    info, engine = seeing.info, seeing.engine
    supported = [info.capabilities.support(f"media.{kind}") for kind in ("image", "audio", "video")]
    assert supported == ["yes", "no", "no"]
    red, blue = part_of("red"), part_of("blue")
    beside = MessagesPrompt(messages=[{"role": "user", "content": "what is this?"}])
    inside = MessagesPrompt(messages=conversation(wire_part(red)))
    seen = await answer(engine, beside, red)
    assert seen.usage.prompt_tokens == QUERIES + len(ids)
    for prompt in (inside, TextPrompt(text=ASKED, add_special_tokens=False), TokensPrompt(token_ids=ids)):
        assert said(await answer(engine, prompt, red)) == said(seen), prompt.kind
    assert said(await answer(engine, beside, red)) == said(seen)
    assert said(await answer(engine, beside, blue)) != said(seen)
    with pytest.raises(InvalidArgument, match="t most 1"):
        await answer(engine, beside, red, blue)
    with pytest.raises(InvalidArgument):
        await answer(engine, beside, MediaPart(type="image", data=b"not an image", mime_type="image/png"))
    plain = await answer(engine, TokensPrompt(token_ids=ids))
    assert said(plain) != said(seen)
    assert engine.load().running == 0


async def test_the_engine_itself_fetches_nothing(seeing, images):
    url = f"{images.url}/red.png"
    for messages in (conversation(by_url(url)), conversation()):
        with pytest.raises(UnsupportedFeature, match="fetches no media"):
            await answer(seeing.engine, MessagesPrompt(messages=messages), MediaPart(type="image", url=url))
    with pytest.raises(UnsupportedFeature, match="fetches no media"):
        await answer(seeing.engine, TextPrompt(text=ASKED), MediaPart(type="image", url=url))
    assert images.asked == []


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(lambda colour, _: by_url(data_url(colour)), id="data URL"),
        pytest.param(lambda colour, _: {"type": "image", "image": picture(colour)}, id="bytes"),
        pytest.param(lambda colour, _: {"type": "image", "image": data_url(colour)}, id="data URL as an image"),
        pytest.param(lambda colour, server: by_url(f"{server.url}/{colour}.png"), id="URL"),
    ],
)
async def test_a_row_shows_what_it_holds(seeing, images, part):
    """The same image gives the same log probabilities, another one gives others; in every form it may come in."""
    options = RowOptions(sampling=GREEDY)
    answers = {}
    for colour in ("red", "blue", "red"):
        row = {"messages": conversation(part(colour, images))}
        (prepared,) = seeing.prepare([row_to_request(row, options)])
        completion = await seeing.complete(prepared)
        assert completion_to_columns(completion)["num_generated_tokens"] == 8
        answers.setdefault(colour, []).append(said(completion))
    again, (blue,) = answers["red"], answers["blue"]
    assert again[0] == again[1]
    assert again[0] != blue
    beside = MessagesPrompt(messages=[{"role": "user", "content": "what is this?"}])
    assert said(await answer(seeing, beside, part_of("red"))) == again[0]


async def test_a_redirect_within_the_rules_is_followed(seeing, images):
    prompt = MessagesPrompt(messages=conversation(by_url(f"{images.url}/round")))
    told = MessagesPrompt(messages=conversation(by_url(data_url("red"))))
    assert said(await answer(seeing, prompt)) == said(await answer(seeing, told))


async def test_other_hosts_are_refused(seeing, images):
    images.asked.clear()
    for url in (f"http://localhost:{images.server_port}/red.png", "http://127.0.0.1:1/", "http://169.254.169.254/"):
        with pytest.raises(InvalidArgument, match="not fetched from") as caught:
            await answer(seeing, MessagesPrompt(messages=conversation(by_url(url))))
        assert caught.value.param == "messages[0].content[0].image_url.url"
    assert images.asked == []
    assert seeing.load().running == 0


async def test_over_http(seeing, images):
    """Through the chat completions API, with an image in the body and one that is fetched."""
    import httpx

    from trunnion_http import PipelineModel, create_app, make_server

    server = make_server(create_app([PipelineModel("seeing", seeing)]), port=0)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/chat/completions"
    try:
        async with httpx.AsyncClient(timeout=120) as client:

            async def ask(image_url):
                body = {"model": "seeing", "messages": conversation(by_url(image_url)), "temperature": 0}
                answered = await client.post(url, json={**body, "max_tokens": 8, "ignore_eos": True})
                return answered.json()

            red, fetched, blue, refused = [
                await ask(one)
                for one in (data_url("red"), f"{images.url}/red.png", data_url("blue"), "http://192.168.0.1/")
            ]
        texts = [one["choices"][0]["message"]["content"] for one in (red, fetched, blue)]
        assert texts[0] == texts[1] != texts[2]
        assert refused["error"]["param"] == "messages[0].content[0].image_url.url"
    finally:
        server.should_exit = True
        await serving


@pytest.mark.timeout(400)
async def test_a_block_of_a_batch_shows_what_it_holds(seeing):
    """Bytes in an Arrow table, through the actor of a batch with an engine of its own."""
    pytest.importorskip("ray")
    import pyarrow as pa

    from trunnion_ray.data import ProcessorConfig, build_processor
    from trunnion_ray.data.worker import BatchWorker

    settings = {**SETTINGS, "engine_kwargs": {}, "max_model_len": 256, "gc_freeze": False}
    config = ProcessorConfig(engine="vllm", model=seeing.info.model, config=settings, sampling=GREEDY)
    held = [{"type": "image", "image": picture(colour)} for colour in ("red", "blue", "red")]
    rows = [{"messages": conversation(part)} for part in [*held, by_url("http://127.0.0.1/red.png")]]

    def answered():
        worker = BatchWorker(build_processor(config).job)
        try:
            return worker(pa.Table.from_pylist(rows)).to_pylist()
        finally:
            worker.close()

    *good, refused = await asyncio.to_thread(answered)
    assert [row["error"] for row in good] == [None] * 3
    choices = [json.loads(row["choices"])[0] for row in good]
    red, blue, again = [Said(one["token_ids"], [token["logprob"] for token in one["logprobs"]]) for one in choices]
    told = await answer(seeing, MessagesPrompt(messages=conversation(by_url(data_url("red")))))
    assert red == again == said(told)
    assert red != blue
    assert refused["error"]["param"] == "messages[0].content[0].image_url.url"
    assert refused["error"]["code"] == "unsupported_feature"
