"""One process owns a batch; another takes over when it has died, and nothing is answered twice or lost."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from batch_lab import CHAT, begin, jsonl, line, lines_of, serving, wait
from http_fakes import FakeModel

from trunnion_http.batches.folders import BatchFolder
from trunnion_http.batches.lease import Leases
from trunnion_http.batches.lines import parse_line, result_line
from trunnion_http.batches.results import Results, adopt
from trunnion_http.batches.state import State


def state_of(**more):
    known = {"id": "batch_x", "endpoint": CHAT, "input_file_id": "file-x", "completion_window": "24h"}
    return State(**known, created_at=1, expires_at=2, **more)


def answered(custom_id, tokens=1):
    asked = parse_line(json.dumps(line(custom_id)).encode(), 1)
    body = {"usage": {"prompt_tokens": 2, "completion_tokens": tokens}}
    return result_line(asked, 200, json.dumps(body).encode(), "r")


def test_only_one_of_many_gets_a_lease(tmp_path):
    barrier, held = threading.Barrier(8), []

    def take():
        barrier.wait()
        held.append(Leases(60).take(tmp_path))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [one] = [lease for lease in held if lease is not None]
    assert (one.number, one.after_death) == (1, False)


def test_a_lease_that_was_released_is_taken_at_once(tmp_path):
    first = Leases(60).take(tmp_path)
    others = Leases(60)
    assert others.take(tmp_path) is None
    first.release()
    second = others.take(tmp_path)
    assert (second.number, second.after_death) == (2, False)
    assert not first.beat()
    assert second.beat()


def test_a_lease_without_a_sign_of_life_is_taken(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("trunnion_http.batches.lease.time.monotonic", lambda: clock[0])
    first = Leases(10).take(tmp_path)
    others = Leases(10)
    assert others.take(tmp_path) is None
    clock[0] = 9.0
    assert first.beat()
    for clock[0] in (11.0, 20.9):
        assert others.take(tmp_path) is None, "it was seen to live"
    clock[0] = 21.1
    second = others.take(tmp_path)
    assert (second.number, second.after_death) == (2, True)
    assert not first.beat()


def test_the_lease_of_a_dead_process_is_taken_at_once(tmp_path):
    script = (
        "import pathlib, sys; from trunnion_http.batches.lease import *; Leases(60).take(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    second = Leases(60).take(tmp_path)
    assert (second.number, second.after_death) == (2, True)


def test_a_lease_that_is_just_being_written_is_respected(tmp_path):
    (tmp_path / "lease-1").touch()
    assert Leases(60).take(tmp_path) is None


def test_half_a_line_is_not_counted_and_later_lines_of_an_old_owner_are_not(tmp_path):
    (tmp_path / "results-1.jsonl").write_bytes(answered("a") + b"\n" + answered("b") + b"\n" + answered("c")[:20])
    (tmp_path / "errors-1.jsonl").write_bytes(b'{"custom_id":"d","response":null,"error":{"code":"x"}}\n')
    state = state_of()
    done = adopt(tmp_path, 2, state)
    assert len(done) == 3
    assert (state.completed, state.failed, state.tokens.input, state.tokens.output) == (2, 1, 4, 2)
    with (tmp_path / "results-1.jsonl").open("ab") as file:  # the old owner was only asleep
        file.write(b"\n" + answered("e") + b"\n")
    mine = Results(tmp_path, 2)
    mine.add("results", answered("c"))
    mine.flush()
    assert adopt(tmp_path, 3, state) - done == adopt(tmp_path, 3, state_of(adopted=dict(state.adopted))) - done
    assert (state.completed, state.failed) == (3, 1)
    size = len(answered("a")) + len(answered("b")) + 2
    assert list(Results(tmp_path, 3).pieces("results", state)) == [
        (tmp_path / "results-1.jsonl", size),
        (tmp_path / "results-2.jsonl", len(answered("c")) + 1),
    ]


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    results = Results(tmp_path, 1)
    results.add("results", b"one")
    results.flush()
    results.add("results", b"two")
    with monkeypatch.context() as patched:

        def full(_):
            raise OSError("no space")

        patched.setattr("trunnion_http.batches.results.os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            results.flush()
    assert (tmp_path / "results-1.jsonl").read_bytes() == b"one\n"
    results.flush()
    assert (tmp_path / "results-1.jsonl").read_bytes() == b"one\ntwo\n"


def test_what_an_owner_writes_after_it_lost_is_not_read(tmp_path):
    folder = BatchFolder(tmp_path)
    folder.write(1, state_of())
    folder.write(2, state_of(completed=5))
    folder.write(1, state_of(status="completed"))
    assert folder.read()[0] == 2
    assert folder.look().completed == 5


def test_two_servers_share_the_work_and_the_answers(tmp_path):
    """As replicas do: any of them answers for every batch, and each batch is run by one."""
    models = [FakeModel("m", delay=0.02) for _ in range(2)]
    with (
        serving([models[0]], tmp_path, max_running=1, lines_in_flight=4) as (_, one),
        serving([models[1]], tmp_path, max_running=1, lines_in_flight=4) as (_, two),
    ):
        batches = [begin(one, [line(f"r{number}") for number in range(40)]) for _ in range(4)]
        assert {wait(two, batch).status for batch in batches} == {"completed"}
        for batch in batches:
            found = lines_of(two, one.batches.retrieve(batch.id).output_file_id)
            assert sorted(each["custom_id"] for each in found) == sorted(f"r{number}" for number in range(40))
    assert all(model.requests for model in models), "both had work"
    assert sum(len(model.requests) for model in models) == 160, "and none of it twice"


def test_a_wish_to_cancel_reaches_the_other_server(tmp_path):
    models = [FakeModel("m", delay=0.05) for _ in range(2)]
    with (
        serving([models[0]], tmp_path, lines_in_flight=1) as (_, one),
        serving([models[1]], tmp_path) as (server, two),
    ):
        server.app.draining = True  # it begins no batch itself
        batch = begin(one, [line(f"r{number}") for number in range(500)])
        wait(two, batch, lambda seen: seen.request_counts.completed > 0)
        assert two.batches.cancel(batch.id).status == "cancelling"
        assert wait(one, batch).status == "cancelled"
    assert not models[1].requests


def test_an_owner_that_slept_too_long_stops_and_harms_nothing(tmp_path):
    models = [FakeModel("m", delay=0.02), FakeModel("m")]
    with serving([models[0]], tmp_path, lines_in_flight=2, lease_seconds=60) as (server, one):
        batch = begin(one, [line(f"r{number}") for number in range(100)])
        wait(one, batch, lambda seen: seen.request_counts.completed > 3)
        models[0].delay = 1.0
        path = tmp_path / "everybody" / "batches" / batch.id
        note = json.loads((path / "lease-1").read_bytes())
        (path / "lease-1").write_bytes(json.dumps({**note, "released": True}).encode())  # others think so
        with serving([models[1]], tmp_path, lines_in_flight=2) as (_, two):
            done = wait(two, batch)
            assert server.app.batches._running, "the first goes on: it has not looked yet"
            models[0].delay = 0.0
            end = time.monotonic() + 30
            while server.app.batches._running:  # it finds out when it wants to finish, if not before
                assert time.monotonic() < end
                time.sleep(0.02)
            assert two.batches.retrieve(batch.id) == done
            found = lines_of(two, done.output_file_id)
            assert [each.id for each in two.files.list(purpose="batch_output")] == [done.output_file_id]
    assert sorted(each["custom_id"] for each in found) == sorted(f"r{number}" for number in range(100))
    assert done.request_counts.completed == 100
    assert {each["id"].split("-")[1] for each in found} == {"1", "2"}, "each has its part in it"


def test_a_stop_puts_batches_down_for_the_next_server(tmp_path):
    with serving([FakeModel("m", delay=0.1)], tmp_path, lines_in_flight=2) as (_, client):
        batch = begin(client, [line(f"r{number}") for number in range(30)])
        wait(client, batch, lambda seen: seen.request_counts.completed > 1)
    path = tmp_path / "everybody" / "batches" / batch.id
    before = [each for each in (path / "results-1.jsonl").read_bytes().splitlines() if each]
    model = FakeModel("m")
    with serving([model], tmp_path, lease_seconds=600) as (_, client):
        done = wait(client, batch)
        found = client.files.content(done.output_file_id).read().splitlines()
    assert found[: len(before)] == before
    assert len(found) == done.request_counts.completed == 30
    assert len(model.requests) == 30 - len(before), "no line that was finished is asked again"


SCRIPT = """
import sys
from http_fakes import FakeModel
from trunnion_http import BatchSettings, HTTPSettings, create_app, serve
folder, port, delay = sys.argv[1:]
http = HTTPSettings(batches=BatchSettings(folder=folder, lines_in_flight=4, lease_seconds=600))
serve(create_app([FakeModel("m", delay=float(delay))], http), port=int(port))
"""


@contextlib.contextmanager
def process_serving(folder, delay):
    """Serve in a process of its own; yield it, and a client."""
    import openai

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(folder), str(port), str(delay)]
    with subprocess.Popen(command, cwd=Path(__file__).parent) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"{url}/health")
                    break
                assert time.monotonic() < end
                time.sleep(0.05)
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client:
                yield process, client
        finally:
            process.kill()


@pytest.mark.slow
def test_a_server_that_is_killed_goes_on_where_it_was(tmp_path):
    with process_serving(tmp_path, 0.05) as (process, client):
        batch = begin(client, [line(f"r{number}") for number in range(60)])
        wait(client, batch, lambda seen: seen.request_counts.completed > 8)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    path = tmp_path / "everybody" / "batches" / batch.id
    before = [each for each in (path / "results-1.jsonl").read_bytes().splitlines(keepends=True) if each[-1:] == b"\n"]
    assert 8 < len(before) < 60
    with (path / "results-1.jsonl").open("ab") as file:
        file.write(b'{"id":"half a li')  # had it been killed within a write
    with process_serving(tmp_path, 0.0) as (_, client):
        done = wait(client, batch)
        found = client.files.content(done.output_file_id).read().splitlines(keepends=True)
    assert done.status == "completed"
    assert done.request_counts.completed == done.request_counts.total == 60
    assert found[: len(before)] == before, "what was on disk is kept as it was"
    assert sorted(json.loads(each)["custom_id"] for each in found) == sorted(f"r{number}" for number in range(60))
    assert {json.loads(each)["id"].split("-")[1] for each in found[len(before) :]} == {"2"}


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_cancels_goes_on_with_that(tmp_path):
    with process_serving(tmp_path, 0.05) as (process, client):
        batch = begin(client, [line(f"r{number}") for number in range(60)])
        wait(client, batch, lambda seen: seen.request_counts.completed > 3)
        client.batches.cancel(batch.id)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with process_serving(tmp_path, 5) as (_, client):
        done = wait(client, batch)
        assert done.status == "cancelled"
        assert 3 < done.request_counts.completed < 60
        assert len(lines_of(client, done.error_file_id)) == 60 - done.request_counts.completed


def test_a_batch_that_was_killed_while_it_was_finished_is_finished_once(tmp_path):
    """A server died after it had made the output file, and before it had said so."""
    with serving([FakeModel("m")], tmp_path) as (_, client):
        done = wait(client, begin(client, [line("a"), line("b")]))
    path = tmp_path / "everybody" / "batches" / done.id
    folder = BatchFolder(path)
    number, state = folder.read()
    state.status, state.ending, state.error_file_id = "finalizing", "completed", None
    folder.write(number, state)
    output = tmp_path / "everybody" / "files" / f"{done.output_file_id}.bin"
    (path / f"results-{number}.jsonl").write_bytes(output.read_bytes())
    folder.input.write_bytes(jsonl([line("a"), line("b")]))
    (tmp_path / "open" / f"{done.id}.everybody").touch()
    model = FakeModel("m")
    with serving([model], tmp_path, lease_seconds=0.5) as (_, client):
        again = wait(client, done)
        assert (again.status, again.output_file_id) == ("completed", done.output_file_id)
        assert len(lines_of(client, again.output_file_id)) == 2
        assert [one.purpose for one in client.files.list(purpose="batch_output")] == ["batch_output"]
    assert not model.requests
