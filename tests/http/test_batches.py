"""Batches: real jobs on the engine that serves, told as OpenAI tells of them, seen through its own client."""

import asyncio
import contextlib
import json
import time

import httpx
import openai
import pytest
from batch_lab import CHAT, begin, client_of, jsonl, line, lines_of, serving, upload, wait
from http_fakes import FakeModel, RunningServer
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from strict_types import every

import trunnion
from trunnion.capabilities import Capabilities
from trunnion.engine import EngineInfo
from trunnion.errors import EngineDead, Overloaded, Transient
from trunnion_http import BatchSettings, HTTPSettings, ModelDirectory, PipelineModel, create_app
from trunnion_http.batches.folders import BatchFolder
from trunnion_http.batches.keeper import Keeper


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    """Serve the simulated engine, one adapter, and a folder for batches; return a client."""
    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan():
        spec = trunnion.engine_spec("sim", "sim", {"default_max_tokens": 4, "adapters": ["loud"]})
        async with trunnion.open_pipeline(spec) as pipeline:
            directory.add(PipelineModel("m", pipeline))
            yield

    settings = HTTPSettings(batches=BatchSettings(folder=str(tmp_path_factory.mktemp("batches"))))
    with RunningServer(create_app(directory, settings, lifespan=lifespan)) as server, client_of(server) as client:
        yield client


BODIES = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"model": "m", "prompt": "Hello"},
    "/v1/responses": {"model": "m", "input": "Hello"},
    "/v1/embeddings": {"model": "m", "input": ["a", "b"]},
    "/v1/score": {"model": "m", "text_1": "a", "text_2": ["a", "b"]},
    "/v1/rerank": {"model": "m", "query": "a", "documents": ["a", "b"]},
    "/v1/classify": {"model": "m", "input": "a"},
}
TYPES = {
    CHAT: ChatCompletion,
    "/v1/completions": Completion,
    "/v1/responses": Response,
    "/v1/embeddings": CreateEmbeddingResponse,
}


@pytest.mark.parametrize("url", BODIES)
def test_each_line_is_answered_as_the_route_would(sim, url):
    lines = [line(f"r{number}", url, **BODIES[url]) for number in range(20)]
    batch = begin(sim, lines, url, metadata={"night": "1"})
    list(every(batch))
    assert (batch.status, batch.endpoint, batch.metadata) == ("validating", url, {"night": "1"})
    assert batch.expires_at - batch.created_at == 86_400
    done = wait(sim, batch)
    assert (done.status, done.error_file_id, done.errors, done.model) == ("completed", None, None, "m")
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (20, 20, 0)
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert (done.failed_at, done.expired_at, done.cancelling_at, done.cancelled_at) == (None,) * 4
    output = sim.files.retrieve(done.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    found = lines_of(sim, done.output_file_id)
    assert sorted(one["custom_id"] for one in found) == sorted(one["custom_id"] for one in lines)
    online = sim.post(url.removeprefix("/v1"), body=BODIES[url], cast_to=object)
    tokens = 0
    for one in found:
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        assert set(one["response"]["body"]) == set(online)
        if url in TYPES:
            list(every(TYPES[url].model_validate(one["response"]["body"])))
        usage = one["response"]["body"]["usage"]
        tokens += usage.get("output_tokens", usage.get("completion_tokens", 0))
    assert done.usage.output_tokens == tokens
    assert done.usage.input_tokens > 0
    assert done.usage.total_tokens == done.usage.input_tokens + tokens


def test_an_adapter_answers_its_lines(sim):
    lines = [line("plain"), line("loud", model="loud", messages=[{"role": "user", "content": "Hello"}])]
    done = wait(sim, begin(sim, lines))
    said = {
        one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"]
        for one in lines_of(sim, done.output_file_id)
    }
    assert said["loud"].isupper()
    assert not said["plain"].isupper()
    assert done.model is None, "it has two"


def test_adapters_that_come_and_go_are_asked_for(tmp_path):
    """As a gateway's models are: one that has just started knows of none."""
    model = FakeModel("m")

    async def look(*, within=0.0):
        model.adapters = {"new"}

    model.look = look
    with serving([model], tmp_path) as (_, client):
        lines = [line("a", model="new", messages=BODIES[CHAT]["messages"])]
        assert wait(client, begin(client, lines)).request_counts.completed == 1
    assert model.last.adapter == "new"


def test_a_line_that_fails_is_in_the_error_file(sim):
    lines = [line("good"), line("bad", model="m", messages=[], wrong=1), line("long", model="m", prompt="x" * 10)]
    done = wait(sim, begin(sim, lines))
    assert done.status == "completed"
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 2)
    assert [one["custom_id"] for one in lines_of(sim, done.output_file_id)] == ["good"]
    failed = {one["custom_id"]: one for one in lines_of(sim, done.error_file_id)}
    assert set(failed) == {"bad", "long"}
    assert failed["bad"]["response"]["status_code"] == 400
    assert failed["bad"]["response"]["body"]["error"]["param"] == "wrong"
    assert failed["bad"]["error"] is None


def test_where_all_fail_there_is_no_output(sim):
    done = wait(sim, begin(sim, [line("bad", model="m", messages=[])]))
    assert (done.status, done.output_file_id) == ("completed", None)
    assert sim.files.retrieve(done.error_file_id).filename == f"{done.id}_error.jsonl"


def test_an_invalid_input_fails_and_tells_each_line(sim):
    lines = [
        json.dumps(line("a")).encode(),
        b"{not json",
        json.dumps(line("a")).encode(),
        b"",
        json.dumps(line("b", url="/v1/completions", model="m", prompt="x")).encode(),
        json.dumps(line("c", method="GET")).encode(),
        json.dumps({**line("d"), "custom_id": None}).encode(),
        json.dumps({**line("e"), "body": "text"}).encode(),
        json.dumps(line("f", model="nobody", messages=[])).encode(),
        json.dumps(line("g", stream=True, **BODIES[CHAT])).encode(),
        b"[1]",
    ]
    done = wait(sim, begin(sim, b"\n".join(lines)))
    assert done.status == "failed"
    assert done.failed_at >= done.created_at
    assert (done.in_progress_at, done.output_file_id, done.error_file_id) == (None, None, None)
    assert [(one.line, one.code, one.param) for one in done.errors.data] == [
        (2, "invalid_json_line", None),
        (3, "duplicate_custom_id", "custom_id"),
        (5, "url_mismatch", "url"),
        (6, "invalid_line", "method"),
        (7, "invalid_line", "custom_id"),
        (8, "invalid_line", "body"),
        (9, "model_not_found", "body.model"),
        (10, "invalid_line", "body.stream"),
        (11, "invalid_line", None),
    ]
    assert "'nobody' is not served here" in done.errors.data[6].message


@pytest.mark.parametrize("data", [b"", b"\n\n  \n"])
def test_an_empty_input_fails(sim, data):
    done = wait(sim, begin(sim, data))
    assert [one.code for one in done.errors.data] == ["empty_file"]


def test_only_so_many_faults_are_told(sim):
    done = wait(sim, begin(sim, b"x\n" * 1000))
    assert len(done.errors.data) == 100


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"endpoint": "/v1/nothing"}, "endpoint"),
        ({"completion_window": "1 week"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"completion_window": "0s"}, "completion_window"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"x" * 65: "x"}}, "metadata"),
        ({"metadata": {"x": "x" * 513}}, "metadata"),
        ({"metadata": {"x": 1}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
def test_what_a_batch_does_not_take_is_refused(sim, changed, param):
    made = upload(sim, [line("a")])
    with pytest.raises(openai.BadRequestError) as caught:
        sim.batches.create(**{"input_file_id": made.id, "endpoint": CHAT, "completion_window": "24h", **changed})
    assert caught.value.param.startswith(param)


@pytest.mark.parametrize("file_id", ["file-" + "0" * 32, "../../../etc/passwd", ""])
def test_an_input_that_is_not_there_is_refused(sim, file_id):
    with pytest.raises(openai.NotFoundError) as caught:
        sim.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    assert caught.value.param == "input_file_id"


def test_an_output_is_no_input(sim):
    done = wait(sim, begin(sim, [line("a")]))
    with pytest.raises(openai.BadRequestError, match="purpose") as caught:
        sim.batches.create(input_file_id=done.output_file_id, endpoint=CHAT, completion_window="24h")
    assert caught.value.param == "input_file_id"


def test_the_time_that_outputs_are_kept_may_be_said(sim):
    done = wait(sim, begin(sim, [line("a")], output_expires_after={"anchor": "created_at", "seconds": 7200}))
    output = sim.files.retrieve(done.output_file_id)
    assert output.expires_at - output.created_at == 7200


def test_a_batch_outlives_its_input(tmp_path):
    with serving([FakeModel("m", delay=0.1)], tmp_path, lines_in_flight=1) as (_, client):
        batch = begin(client, [line(f"r{number}") for number in range(5)])
        client.files.delete(batch.input_file_id)
        assert wait(client, batch).request_counts.completed == 5


def test_batches_are_listed_the_newest_first(tmp_path):
    with serving([FakeModel("m")], tmp_path) as (server, client):
        ids = [begin(client, [line("a")]).id for _ in range(5)]
        assert [one.id for one in client.batches.list(limit=2)] == ids[::-1], "the client pages on"
        page = client.batches.list(limit=2, after=ids[3])
        assert ([one.id for one in page.data], page.has_more) == ([ids[2], ids[1]], True)
        for query in ("limit=101", "after=file-" + "0" * 32, "order=asc"):
            assert httpx.get(f"{server.url}/v1/batches?{query}").status_code == 400
        for batch_id in ("batch_" + "0" * 32, "..%2f..", "file-" + "0" * 32):
            assert httpx.get(f"{server.url}/v1/batches/{batch_id}").status_code == 404
            assert httpx.post(f"{server.url}/v1/batches/{batch_id}/cancel").status_code == 404


def test_cancelling_midway_keeps_what_was_answered(tmp_path):
    model = FakeModel("m", delay=0.05)
    with serving([model], tmp_path, lines_in_flight=2) as (_, client):
        batch = begin(client, [line(f"r{number}") for number in range(200)])
        wait(client, batch, lambda seen: seen.request_counts.completed > 3)
        seen = client.batches.cancel(batch.id)
        list(every(seen))
        assert seen.status == "cancelling"
        assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
        done = wait(client, batch)
        assert done.status == "cancelled"
        assert model.wait_free()
        assert done.cancelling_at <= done.cancelled_at
        assert done.completed_at is None
        answered = lines_of(client, done.output_file_id)
        assert 3 < len(answered) == done.request_counts.completed < 200
        left = lines_of(client, done.error_file_id)
        assert {one["error"]["code"] for one in left} == {"batch_cancelled"}
        assert {one["custom_id"] for one in answered + left} == {f"r{number}" for number in range(200)}
        assert len(answered) + len(left) == 200
        assert client.batches.cancel(batch.id).status == "cancelled"


def test_a_batch_that_has_ended_cannot_be_cancelled(sim):
    done = wait(sim, begin(sim, [line("a")]))
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        sim.batches.cancel(done.id)
    assert sim.batches.retrieve(done.id) == done


def test_a_batch_that_waits_can_be_cancelled(tmp_path):
    with serving([FakeModel("m", delay=5)], tmp_path, max_running=1) as (_, client):
        first, second = begin(client, [line("a")]), begin(client, [line("a")])
        wait(client, first, ["in_progress"])
        assert client.batches.retrieve(second.id).status == "validating"
        client.batches.cancel(second.id)
        assert wait(client, second).status == "cancelled"
        assert client.batches.retrieve(first.id).status == "in_progress"


def test_so_many_run_at_once_as_may(tmp_path):
    with serving([FakeModel("m", delay=5)], tmp_path, max_running=2) as (_, client):
        first, second, third = [begin(client, [line("a")]) for _ in range(3)]
        wait(client, first, ["in_progress"])
        wait(client, second, ["in_progress"])
        assert client.batches.retrieve(third.id).status == "validating"


def test_a_window_that_is_over_ends_it(tmp_path):
    with serving([FakeModel("m", delay=0.05)], tmp_path, lines_in_flight=1) as (_, client):
        batch = begin(client, [line(f"r{number}") for number in range(300)], window="3s")
        assert batch.expires_at - batch.created_at == 3
        done = wait(client, batch)
        assert done.status == "expired"
        assert done.expired_at >= done.finalizing_at >= done.expires_at - 1  # a timer may be a millisecond early
        answered, left = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
        assert 0 < len(answered) == done.request_counts.completed
        assert done.request_counts.failed == 0
        assert {one["error"]["code"] for one in left} == {"batch_expired"}
        assert sorted(one["custom_id"] for one in answered + left) == sorted(f"r{number}" for number in range(300))


def test_a_batch_that_waits_may_expire(tmp_path):
    with serving([FakeModel("m", delay=5)], tmp_path, max_running=1) as (_, client):
        wait(client, begin(client, [line("a")]), ["in_progress"])
        late = begin(client, [line("a")], window="1s")
        assert wait(client, late).status == "expired"


def test_so_many_lines_are_in_flight_as_may(tmp_path):
    model = FakeModel("m", delay=0.01)
    with serving([model], tmp_path, lines_in_flight=3) as (_, client):
        batches = [begin(client, [line(f"r{number}") for number in range(20)]) for _ in range(3)]
        assert {wait(client, batch).status for batch in batches} == {"completed"}
    assert model.peak == 3


def test_lines_run_at_their_own_priority_and_time(tmp_path):
    model = FakeModel("m")
    features = {"priority": "yes"}
    model.info = EngineInfo(engine="fake", model="fake", capabilities=Capabilities.of(yes=features, others="no"))
    other = FakeModel("plain")
    with serving([model, other], tmp_path, priority=7, http={"request_timeout": 60}) as (_, client):
        other_body = {**BODIES[CHAT], "model": "plain"}
        lines = [line("a"), line("b", priority=0, **BODIES[CHAT]), line("c", **other_body)]
        assert wait(client, begin(client, lines)).status == "completed"
        client.chat.completions.create(**BODIES[CHAT])
    asked = {request.request_id.split("-")[2]: request for request in model.requests[:2]}
    assert (asked["1"].priority, asked["2"].priority, model.last.priority) == (7, 0, 0)
    assert other.last.priority == 0, "an engine without priorities is not asked for one"
    assert asked["1"].deadline is None
    assert model.last.deadline is not None


@pytest.mark.parametrize("priority", [0, 1])
def test_a_request_overtakes_lines_that_wait(tmp_path, priority):
    """Where the engine has priorities; with that of requests, lines are as good as they."""
    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan():
        spec = trunnion.engine_spec("sim", "sim", {"slots": 1, "tpot": 0.1, "default_max_tokens": 2})
        async with trunnion.open_pipeline(spec) as pipeline:
            directory.add(PipelineModel("m", pipeline))
            yield

    batches = BatchSettings(folder=str(tmp_path), lines_in_flight=12, priority=priority)
    app = create_app(directory, HTTPSettings(batches=batches), lifespan=lifespan)
    with RunningServer(app) as server, client_of(server) as client:
        batch = begin(client, [line(f"r{number}") for number in range(100)])
        wait(client, batch, lambda seen: seen.request_counts.completed > 0)

        def answered():
            return app.metrics._requests["m", f"batch:{CHAT}", 200]

        before = answered()
        client.chat.completions.create(**BODIES[CHAT])
        overtaken = answered() - before
    assert overtaken <= 4 if priority else overtaken >= 9


def test_a_full_queue_is_waited_for(tmp_path):
    model = FakeModel("m", refuse=Overloaded("full", retry_after=0.05))
    with serving([model], tmp_path, retries=0) as (_, client):
        batch = begin(client, [line("a")])
        end = time.monotonic() + 20
        while len(model.requests) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)
        model.refuse = None
        assert wait(client, batch).request_counts.completed == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_a_dead_engine_is_waited_for_and_no_line_fails(tmp_path, monkeypatch, retries):
    monkeypatch.setattr("trunnion_http.batches.keeper._AGAIN", 60.0)
    model = FakeModel("m", refuse=Transient("restarting", retry_after=0.01))
    with serving([model], tmp_path, retries=retries, lines_in_flight=1) as (server, client):
        batch = begin(client, [line("a"), line("b")])
        folder = BatchFolder(tmp_path / "everybody" / "batches" / batch.id)
        end = time.monotonic() + 20
        while not folder.read()[1].wary:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert len(model.requests) == 1 + retries
        assert client.batches.retrieve(batch.id).status == "in_progress"
        model.refuse = None
        server.app.batches._not_before.clear()
        done = wait(client, batch)
        assert (done.status, done.request_counts.completed, done.error_file_id) == ("completed", 2, None)


def test_a_server_that_stops_because_its_engine_died_warns_the_next_one(tmp_path):
    model = FakeModel("m", refuse=EngineDead("it died", retry_after=0.01))
    with serving([model], tmp_path, retries=1000) as (_, client):
        batch = begin(client, [line(f"r{number}") for number in range(40)])
        end = time.monotonic() + 20
        while not model.requests:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert BatchFolder(tmp_path / "everybody" / "batches" / batch.id).read()[1].wary
    model = FakeModel("m", delay=0.01)
    with serving([model], tmp_path, lines_in_flight=8) as (_, client):
        assert wait(client, batch).request_counts.completed == 40
    asked = [int(request.request_id.split("-")[2]) for request in model.requests]
    assert asked[:8] == list(range(1, 9)), "those that it may have died of, one by one"
    assert model.peak == 8


def test_a_line_that_kills_the_engine_is_set_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("trunnion_http.batches.keeper._AGAIN", 0.0)
    model = FakeModel("m")
    killed = []

    async def generate(request):
        if "poison" in request.prompt.messages[0]["content"]:
            killed.append(request.request_id)
            raise EngineDead("it died")
        async for event in FakeModel.generate(model, request):
            yield event

    model.generate = generate
    with serving([model], tmp_path, retries=0, lines_in_flight=4) as (_, client):
        done = wait(client, begin(client, [line(name) for name in ("a", "b", "poison", "c", "d", "e", "f")]))
        assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 6, 1)
        [failed] = lines_of(client, done.error_file_id)
        assert (failed["custom_id"], failed["error"]["code"]) == ("poison", "engine_dead")
        assert len(killed) == 4, "once among others, three times alone"


def test_the_batches_of_one_key_are_not_anothers(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYS", "red: one, blue: two")
    model = FakeModel("m", delay=0.02)
    with serving([model], tmp_path, api_key="one", http={"api_keys_env": "KEYS"}) as (server, one):
        batch = begin(one, [line(f"r{number}") for number in range(20)])
        with client_of(server, "two") as two:
            assert two.batches.list().data == []
            for ask in (two.batches.retrieve, two.batches.cancel):
                with pytest.raises(openai.NotFoundError):
                    ask(batch.id)
            done = wait(one, batch)
            with pytest.raises(openai.NotFoundError):
                two.files.content(done.output_file_id)
        assert done.request_counts.completed == 20
        assert len(lines_of(one, done.output_file_id)) == 20
    assert {request.tenant for request in model.requests} == {"red"}, "lines are asked in the name of their owner"


def test_nobodys_many_batches_keep_others_from_theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYS", "red: one, blue: two")
    model = FakeModel("m", delay=0.1)
    http = {"api_keys_env": "KEYS"}
    with serving([model], tmp_path, api_key="one", http=http, max_running=1) as (server, one):
        many = [begin(one, [line("a"), line("b")]) for _ in range(6)]
        wait(one, many[0], ["in_progress"])
        with client_of(server, "two") as two:
            done = wait(two, begin(two, [line("a")]))
        assert done.status == "completed"
        assert one.batches.retrieve(many[-1].id).status == "validating"


def test_lines_need_no_place_at_the_door_and_are_counted_apart(tmp_path):
    with serving([FakeModel("m", delay=0.05)], tmp_path, http={"max_requests": 1}) as (server, client):
        batch = begin(client, [line(f"r{number}") for number in range(10)])
        client.chat.completions.create(**BODIES[CHAT])
        assert wait(client, batch).request_counts.completed == 10
        told = httpx.get(f"{server.url}/metrics").text
    assert f'endpoint="batch:{CHAT}",model="m",status="200"}} 10.0' in told
    assert f'endpoint="{CHAT}",model="m",status="200"}} 1.0' in told
    assert 'endpoint="/v1/batches/{batch_id}"' in told


def test_old_batches_and_what_was_left_behind_are_removed(tmp_path):
    with serving([FakeModel("m")], tmp_path, retention=1) as (server, client):
        batch = wait(client, begin(client, [line("a")]))
        store = server.app.batches.batches("everybody")
        end = time.monotonic() + 10
        while store.ids():
            assert time.monotonic() < end
            server.app.batches._sweep()
            time.sleep(0.05)
        with pytest.raises(openai.NotFoundError):
            client.batches.retrieve(batch.id)


def test_a_server_without_lifespan_runs_batches_too(tmp_path):
    """Whoever serves the app otherwise: the first request for a file or a batch starts the looking."""
    settings = HTTPSettings(batches=BatchSettings(folder=str(tmp_path)))
    app = create_app([FakeModel("m")], settings)

    async def go():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as web:
            data = {"purpose": "batch"}
            made = (await web.post("/v1/files", data=data, files={"file": ("a", jsonl([line("a")]))})).json()
            body = {"input_file_id": made["id"], "endpoint": CHAT, "completion_window": "24h"}
            batch = (await web.post("/v1/batches", json=body)).json()
            async with asyncio.timeout(20):
                while (await web.get(f"/v1/batches/{batch['id']}")).json()["status"] != "completed":
                    await asyncio.sleep(0.02)
        assert isinstance(app.batches, Keeper)
        await app.suspend_batches()

    asyncio.run(go())
