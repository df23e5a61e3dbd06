"""Rows that are HTTP requests, as the actor answers them: without Ray."""

import asyncio
import json
import pickle
import threading
import time

import pyarrow as pa
import pytest
from endpoint_servers import ScriptedServer, answer, http

from trunnion import LoopThread
from trunnion.errors import Overloaded, TrunnionError, UnsupportedFeature
from trunnion_ray.data import HttpRequestProcessorConfig, HttpRequestStageConfig, build_processor
from trunnion_ray.data.call_worker import CallBatchWorker


async def echo(asked, writer):
    body = {"path": asked.path, "got": asked.body, "key": asked.headers.get("authorization")}
    status = asked.body.get("status", 200) if isinstance(asked.body, dict) else 200
    writer.write(http(status, json.dumps(body).encode()))
    await writer.drain()


@pytest.fixture
def serve():
    """Return a function that runs a scripted server on a thread of its own."""
    thread, servers = LoopThread("scripted"), []

    def run(script=echo):
        server = ScriptedServer(script)
        servers.append(server)
        thread.run(server.__aenter__())
        return server

    yield run
    for server in servers:
        thread.run(server.__aexit__())
    thread.close()


@pytest.fixture
def answer_rows(serve):
    workers = []

    def run(rows, preprocess=None, postprocess=None, script=echo, path="/any/where?x=1", **fields):
        server = serve(script)
        url = f"http://127.0.0.1:{server.port}{path}"
        processor = build_processor(HttpRequestProcessorConfig(url=url, **fields), preprocess, postprocess)
        workers.append(CallBatchWorker(pickle.loads(pickle.dumps(processor.job)) if not preprocess else processor.job))
        return server, workers[-1](pa.Table.from_pylist(rows)).to_pylist()

    yield run
    for worker in workers:
        worker.close()


def test_payload_in_response_out(answer_rows):
    _, (row,) = answer_rows([{"id": 1, "payload": {"a": [1, 2]}}], headers={"Authorization": "Bearer k"})
    assert row["id"] == 1
    assert row["http_response"] == {"path": "/any/where?x=1", "got": {"a": [1, 2]}, "key": "Bearer k"}
    assert row["__inference_error__"] == ""


def test_before_and_after(answer_rows):
    _, rows = answer_rows(
        [{"id": i} for i in range(5)],
        lambda row: {"payload": {"n": row["id"], "none": None}},
        lambda row: {"twice": row["http_response"]["got"]["n"] * 2, "keys": sorted(row["http_response"]["got"])},
    )
    assert [row["twice"] for row in rows] == [0, 2, 4, 6, 8]
    assert rows[0]["keys"] == ["n", "none"]
    assert {row["__inference_error__"] for row in rows} == {""}


def test_nulls_that_arrow_filled_in_are_not_sent(answer_rows):
    server, rows = answer_rows([{"payload": {"a": 1}}, {"payload": {"b": 2}}])
    assert sorted(sorted(asked.body) for asked in server.asked) == [["a"], ["b"]]
    assert [row["http_response"]["got"]["a"] for row in rows] == [1, None]


def test_json_text_is_a_payload_as_it_stands(answer_rows):
    server, _ = answer_rows([{"payload": '{"c": null}'}])
    assert server.asked[0].body == {"c": None}


def test_one_bad_row_is_one_error(answer_rows):
    rows = [{"id": i, "payload": json.dumps({"status": 500 if i == 1 else 200})} for i in range(3)]
    rows.append({"id": 3, "payload": None})
    rows.append({"id": 4, "payload": "{oops"})
    _, answered = answer_rows(rows)
    assert [row["id"] for row in answered] == [0, 1, 2, 3, 4]
    assert [bool(row["__inference_error__"]) for row in answered] == [False, True, False, True, True]
    assert [row["http_response"] is None for row in answered] == [False, True, False, True, True]
    assert answered[1]["__inference_error__"].startswith("InternalError: http://127.0.0.1")


def test_functions_that_fail_cost_their_row(answer_rows):
    def before(row):
        return {"payload": {"x": 1 / row["id"]}}

    def after(row):
        return {"id": row["id"], "value": 1 / (row["id"] - 1)}

    _, rows = answer_rows([{"id": i} for i in range(3)], before, after)
    assert ["ZeroDivisionError" in row["__inference_error__"] for row in rows] == [True, True, False]


def test_an_error_may_end_the_job(answer_rows):
    with pytest.raises(TrunnionError):
        answer_rows([{"payload": {"status": 400}}], should_continue_on_error=False)


def test_many_in_flight_and_many_blocks(answer_rows):
    arrived = threading.Event()
    count = 0

    async def script(asked, writer):
        nonlocal count
        count += 1
        if count == 100:
            arrived.set()
        while not arrived.is_set():
            await asyncio.sleep(0.01)
        await echo(asked, writer)

    _, rows = answer_rows([{"payload": {"n": i}} for i in range(100)], script=script)
    assert [row["http_response"]["got"]["n"] for row in rows] == list(range(100))


def test_retries(answer_rows):
    states = [503, 429]

    async def script(asked, writer):
        if states:
            writer.write(http(states.pop(), b"{}"))
            await writer.drain()
        else:
            await echo(asked, writer)

    server, (row,) = answer_rows([{"payload": {}}], script=script, max_retries=2, base_retry_wait_time_in_s=0.01)
    assert row["__inference_error__"] == ""
    assert len(server.asked) == 3
    server, (row,) = answer_rows([{"payload": {}}], script=answer(503, {}))
    assert "503" in row["__inference_error__"]
    assert len(server.asked) == 1


def test_requests_per_second(answer_rows):
    times = []

    async def script(asked, writer):
        times.append(time.monotonic())
        await echo(asked, writer)

    answer_rows([{"payload": {}}] * 11, script=script, qps=20)
    assert times[-1] - times[0] >= 0.3


def test_files_are_refused_by_name(answer_rows):
    _, (row,) = answer_rows([{"id": 1}], lambda _: {"payload": {"file": b"abc"}})
    assert row["__inference_error__"].startswith(UnsupportedFeature.__name__)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"session_factory": object}, "session_factory"),
        ({"http_request_stage": False}, "http_request_stage"),
        ({"http_request_stage": 7}, "http_request_stage"),
        ({"http_request_stage": {"cpus": 1}}, "http_request_stage"),
        ({"url": "nowhere"}, "base_url"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields, param):
    with pytest.raises(TrunnionError) as caught:
        HttpRequestProcessorConfig(**{"url": "http://x/y", **fields})
    assert caught.value.param == param


def test_the_stage_wins():
    stage = {
        "batch_size": 3,
        "concurrency": (1, 2),
        "runtime_env": {"env_vars": {"A": "b"}},
        "num_cpus": 0.5,
        "memory": 1e6,
    }
    for given in (stage, HttpRequestStageConfig(**stage)):
        config = HttpRequestProcessorConfig(url="http://x/y", batch_size=9, concurrency=4, http_request_stage=given)
        made = build_processor(config)
        assert (made.batch_size, made.replicas) == (3, (1, 2))
        assert dict(made.placed) == {
            "num_cpus": 0.5, "memory": 1_000_000, "runtime_env": {"env_vars": {"A": "b"}}
        }  # fmt: skip
    made = build_processor(HttpRequestProcessorConfig(url="http://x/y", batch_size=9, concurrency=4))
    assert (made.batch_size, made.replicas, dict(made.placed)) == (9, (4, 4), {"num_cpus": 0.25})
    made = build_processor(HttpRequestProcessorConfig(url="http://x/y", accelerator_type="A10G"))
    assert made.placed["accelerator_type"] == "A10G"


def test_nothing_of_a_header_is_in_a_spec():
    job = build_processor(HttpRequestProcessorConfig(url="http://x/y", headers={"Authorization": "Bearer k"})).job
    assert "Bearer" not in json.dumps(job.caller._spec.to_json())
    assert "Bearer" not in repr(job)


def test_ray_has_no_further_field():
    module = pytest.importorskip("ray.data.llm")
    assert set(HttpRequestProcessorConfig.model_fields) == {
        *module.HttpRequestProcessorConfig.model_fields,
        "should_continue_on_error",
    }
    assert set(HttpRequestStageConfig.model_fields) == set(module.HttpRequestStageConfig.model_fields)


def test_an_error_keeps_its_kind(answer_rows):
    _, (row,) = answer_rows([{"payload": {}}], script=answer(429, {}))
    assert row["__inference_error__"].startswith(Overloaded.__name__)
