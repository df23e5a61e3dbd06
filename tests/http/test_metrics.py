"""GET /metrics: what was asked, how long it took, and how much of that was ours."""

import asyncio
import time

import httpx
import pytest
from http_fakes import FakeModel, RunningServer
from prometheus_client.parser import text_string_to_metric_families

from trunnion import engine_spec, open_pipeline
from trunnion_http import HTTPSettings, PipelineModel, create_app

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def server():
    models = [FakeModel("one", pieces=["a", "b", "c"], delay=0.02), FakeModel("long", pieces=["x"] * 1000, delay=0.02)]
    with RunningServer(create_app(models)) as running:
        yield running


@pytest.fixture
def web(server):
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def samples(web):
    answer = web.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name.startswith("trunnion_"):
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(found, name, **labels):
    return found.get((f"trunnion_{name}", tuple(sorted(labels.items()))), 0)


def test_requests_tokens_and_times_are_counted(web):
    for stream in (False, True, True):
        assert web.post("/v1/chat/completions", json={**CHAT, "model": "one", "stream": stream}).status_code == 200
    assert web.post("/v1/completions", json={"model": "one", "prompt": "x", "max_tokens": -1}).status_code == 400
    assert web.post("/v1/chat/completions", json={**CHAT, "model": "two"}).status_code == 404
    assert web.get("/nowhere/at/all").status_code == 404
    found = samples(web)
    chat = {"model": "one", "endpoint": "/v1/chat/completions"}
    assert of(found, "requests_total", **chat, status="200") == 3
    assert of(found, "requests_total", model="", endpoint="/v1/chat/completions", status="404") == 1
    assert of(found, "requests_total", model="", endpoint="other", status="404") == 1
    assert of(found, "request_seconds_count", **chat) == 3
    assert of(found, "completion_tokens_total", model="one") == 9
    assert of(found, "prompt_tokens_total", model="one") > 0
    assert of(found, "time_to_first_token_seconds_count", model="one") == 2
    assert of(found, "inter_token_seconds_count", model="one") >= 4
    assert of(found, "inter_token_seconds_sum", model="one") >= 0.04
    assert 0 < of(found, "own_event_seconds_sum", model="one") < of(found, "inter_token_seconds_sum", model="one")
    assert of(found, "requests_in_flight") == 1  # this one


def test_tokens_that_are_only_read_are_counted(web):
    assert web.post("/v1/embeddings", json={"model": "one", "input": ["a", "b"]}).status_code == 200
    found = samples(web)
    assert of(found, "prompt_tokens_total", model="one") == 6
    assert of(found, "completion_tokens_total", model="one") == 0


def test_a_client_that_leaves_is_counted(web):
    with web.stream("POST", "/v1/chat/completions", json={**CHAT, "model": "long", "stream": True}) as answer:
        next(answer.iter_lines())
    for _ in range(100):
        found = samples(web)
        if of(found, "clients_gone_total", model="long"):
            break
        time.sleep(0.05)
    assert of(found, "clients_gone_total", model="long") == 1
    assert of(found, "completion_tokens_total", model="long") >= 1  # what it was sent was used
    assert of(found, "requests_total", model="long", endpoint="/v1/chat/completions", status="499") == 1


def test_paths_and_models_of_strangers_make_no_new_series(web):
    before = len(samples(web))
    for number in range(20):
        web.get(f"/v1/models/x{number}")
        web.post("/v1/completions", json={"model": f"y{number}", "prompt": "x"})
    assert len(samples(web)) <= before + 4


async def test_our_share_before_the_engine_is_told_and_its_load():
    async with open_pipeline(engine_spec("sim", config={"ttft": 0.2})) as pipeline:
        app = create_app([PipelineModel("sim", pipeline)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=20) as web:
            body = {"model": "sim", **CHAT, "stream": True, "max_tokens": 3}
            assert (await web.post("/v1/chat/completions", json=body)).status_code == 200
            text = (await web.get("/metrics")).text
    found = {
        (sample.name, sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }
    assert found["trunnion_own_before_engine_seconds_count", "sim"] == 1
    own, whole = (
        found[f"trunnion_{name}_sum", "sim"] for name in ("own_before_engine_seconds", "time_to_first_token_seconds")
    )
    assert 0 < own < whole
    assert whole > 0.1
    assert found["trunnion_engine_running", "sim"] == 0
    assert found["trunnion_engine_waiting", "sim"] == 0


async def test_the_time_in_the_engines_queue_is_told():
    async with open_pipeline(engine_spec("sim", config={"ttft": 0.2, "max_num_seqs": 1})) as pipeline:
        app = create_app([PipelineModel("sim", pipeline)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=20) as web:
            body = {"model": "sim", **CHAT, "max_tokens": 1}
            await asyncio.gather(*(web.post("/v1/chat/completions", json=body) for _ in range(2)))
            text = (await web.get("/metrics")).text
    assert 'trunnion_queue_seconds_count{model="sim"} 2.0' in text
    first = 'trunnion_queue_seconds_bucket{le="0.05",model="sim"} '
    assert f"{first}1.0" in text  # one was begun at once
    total = next(line for line in text.splitlines() if line.startswith("trunnion_queue_seconds_sum"))
    assert float(total.split()[1]) > 0.1


def test_what_a_library_tells_in_this_process_is_passed_on(web):
    from prometheus_client import Counter

    counter = Counter("vllm_like_things", "Of a library's own.")
    counter.inc(3)
    assert "vllm_like_things_total 3.0" in web.get("/metrics").text


def test_metrics_can_be_off():
    with RunningServer(create_app([FakeModel("one")], HTTPSettings(metrics=False))) as running:
        assert httpx.get(f"{running.url}/metrics").status_code == 404
        body = {**CHAT, "model": "one", "stream": True}
        assert httpx.post(f"{running.url}/v1/chat/completions", json=body).status_code == 200
