"""The app over real pipelines in this process, with the simulated engine."""

import json
import socket
import time
from contextlib import asynccontextmanager

import openai
import pytest
from http_fakes import RunningServer

import trunnion
from trunnion_http import ModelDirectory, PipelineModel, create_app

MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]


@pytest.fixture(scope="module")
def served():
    pipelines = {}
    directory = ModelDirectory()

    @asynccontextmanager
    async def lifespan():
        quick = trunnion.engine_spec("sim", "sim", {"adapters": ["loud"], "tpot": 0.01, "unsupported": ["embeds/1"]})
        slow = trunnion.engine_spec("sim", "sim", {"ttft": 60.0})
        async with trunnion.open_pipeline(quick) as one, trunnion.open_pipeline(slow) as two:
            pipelines.update(sim=one, slow=two)
            for name, pipeline in pipelines.items():
                directory.add(PipelineModel(name, pipeline))
            yield

    with RunningServer(create_app(directory, lifespan=lifespan)) as server:
        server.pipelines = pipelines
        yield server


@pytest.fixture(scope="module")
def sim(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        yield client


def test_chat_streams_what_it_answers(sim):
    ask = {"model": "sim", "messages": MESSAGES, "max_tokens": 8, "seed": 1}
    whole = sim.chat.completions.create(**ask)
    assert whole.usage.completion_tokens == 8
    assert whole.choices[0].finish_reason == "length"
    chunks = list(sim.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 8
    assert len(chunks) > 4


def test_completions_and_adapters(sim):
    plain, other = (sim.completions.create(model=m, prompt="The sea", max_tokens=8) for m in ("sim", "sim:loud"))
    assert plain.choices[0].text
    assert other.choices[0].text != plain.choices[0].text
    both = sim.completions.create(model="sim", prompt=["The sea", "The sea"], max_tokens=8)
    assert [c.text for c in both.choices] == [plain.choices[0].text] * 2
    assert both.usage.completion_tokens == 16
    assert {m.id for m in sim.models.list()} == {"sim", "loud", "slow"}


def test_what_the_engine_cannot_do_is_refused_by_name(sim):
    with pytest.raises(openai.BadRequestError) as caught:
        sim.embeddings.create(model="sim", input="x")
    assert caught.value.code == "unsupported_feature"
    with pytest.raises(openai.BadRequestError) as caught:
        sim.chat.completions.create(model="sim", messages=MESSAGES, extra_body={"extra": {"other": {}}})
    assert caught.value.param == "extra.other"


@pytest.mark.parametrize(("name", "stream"), [("slow", False), ("slow", True), ("sim", True)])
def test_hanging_up_frees_the_engine(served, name, stream):
    body = {"model": name, "messages": MESSAGES, "max_tokens": 5000, "stream": stream}
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
        assert wait_running(served.pipelines[name], 1)
    assert wait_running(served.pipelines[name], 0)


def wait_running(pipeline, wanted):
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        if pipeline.load().running == wanted:
            return True
        time.sleep(0.01)
    return False
