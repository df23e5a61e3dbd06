import httpx
import openai
import pytest
from http_fakes import FakeModel, RunningServer

from trunnion_http import HTTPSettings, create_app


@pytest.fixture(scope="session")
def running():
    """One server for all tests; each adds its own models."""
    app = create_app([FakeModel("base", adapters={"shouting"})], HTTPSettings(max_body_bytes=100_000, max_choices=64))
    with RunningServer(app) as server:
        yield server


@pytest.fixture
def add_model(running):
    """Serve a scripted model for the length of a test."""
    added = []

    def add(**behaviour):
        model = FakeModel(**behaviour)
        running.app.models.add(model)
        added.append(model)
        return model

    yield add
    for model in added:
        running.app.models.remove(model.name)


@pytest.fixture
def model(add_model):
    return add_model()


@pytest.fixture(scope="session")
def web(running):
    with httpx.Client(base_url=running.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="session")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture
def chat(web, model):
    """Post a chat body with the model and a message filled in; return the response."""

    def post(**body):
        body = {"model": model.name, "messages": [{"role": "user", "content": "Hi"}], **body}
        return web.post("/v1/chat/completions", json=body)

    return post


@pytest.fixture
def complete(web, model):
    def post(**body):
        return web.post("/v1/completions", json={"model": model.name, "prompt": "Hi", **body})

    return post
