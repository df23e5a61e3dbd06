"""Images in chat requests: what is refused, by which name, and what the model is asked."""

import base64

import pytest
from http_fakes import RunningServer

import trunnion
from trunnion.media_policy import MediaPolicy
from trunnion_http import ModelDirectory, PipelineModel, create_app

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()
SVG = "data:image/svg+xml;base64," + base64.b64encode(b"<svg></svg>").decode()


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


def asked(part):
    return [{"role": "system", "content": "You see."}, {"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("part", "place"),
    [
        (image("data:image/png;base64,@@@"), "image_url.url"),
        (image("data:image/png;base64,"), "image_url.url"),
        (image("data:image/png,plain"), "image_url.url"),
        (image(SVG), "image_url.url"),
        (image("file:///etc/passwd"), "image_url.url"),
        (image(7), "image_url.url"),
        ({"type": "image_url"}, "image_url.url"),
        ({"type": "input_audio", "input_audio": {"data": "@", "format": "wav"}}, "input_audio.data"),
        ({"type": "image", "image": DATA}, "type"),
    ],
)
def test_a_wrong_part_is_refused_by_its_place(chat, model, part, place):
    response = chat(messages=asked(part))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == f"messages[1].content[0].{place}"
    assert model.requests == []


def test_the_bytes_say_what_an_image_is(chat, model):
    assert chat(messages=asked(image(DATA.replace("png", "jpeg", 1)))).status_code == 200
    assert model.last.media == (trunnion.MediaPart(type="image", data=PNG, mime_type="image/png"),)


@pytest.fixture(scope="module")
def sim():
    """Serve the simulated engine, which takes no images, and yield what to post to."""
    import contextlib

    import httpx

    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan():
        spec = trunnion.PipelineSpec(engine=trunnion.engine_spec("sim", "sim"), media=MediaPolicy(allowed_hosts=["*"]))
        async with trunnion.open_pipeline(spec) as pipeline:
            directory.add(PipelineModel("sim", pipeline))
            yield

    with (
        RunningServer(create_app(directory, lifespan=lifespan)) as server,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        yield client


@pytest.mark.parametrize("url", [DATA, "https://images.example/a.png"])
def test_an_engine_that_takes_no_images_refuses_by_name(sim, url):
    response = sim.post("/v1/chat/completions", json={"model": "sim", "messages": asked(image(url))})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "media.image"
    assert error["code"] == "unsupported_feature"
