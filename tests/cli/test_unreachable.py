"""Endpoints that nobody reaches, and runs that go on where it was so: of rows and of batch files."""

import json
import socket
import time

import pytest
from cli_lines import wait_for_line

NOBODY = (
    "--engine", "openai", "--set", "base_url=http://127.0.0.1:9/v1", "--set", "check_endpoint=false",
    "--set", "max_retries=0", "--retries", "0",
)  # fmt: skip
BATCH = ("run-batch", "-i", "in.jsonl", "-o", "out.jsonl")


def rows(count):
    return [{"prompt": f"number {i}."} for i in range(count)]


def lines(count, model="m"):
    body = {"model": model, "max_tokens": 4}
    return [
        {"custom_id": f"id-{i}", "url": "/v1/completions", "body": {**body, "prompt": f"number {i}."}}
        for i in range(count)
    ]


@pytest.mark.parametrize("kind", ["rows", "batch"])
def test_a_run_ends_where_nobody_answers(cli, kind):
    cli.write("in.jsonl", rows(60) if kind == "rows" else lines(60))
    if kind == "rows":
        command = ("run", "in.jsonl", "out.jsonl", "m", *NOBODY, "--sampling", "max_tokens=4")
    else:
        command = (*BATCH, "--model", "m", *NOBODY)
    result = cli.run(*command, "--max-unreachable", "20")
    assert result.code == 1, result
    assert "error: 20 rows failed one after the other because the engine cannot be reached" in result.err
    assert not (cli.folder / "out.jsonl").exists()
    summary = json.loads((cli.folder / "out.summary.json").read_text())
    assert summary["partial"] is True
    assert summary["ended_by"]["code"] == "engine_unreachable"
    assert "20 rows failed one after the other" in summary["ended_by"]["message"]
    assert result.err.count("\n") < 8
    result = cli.run(*command, "--max-unreachable", "0")
    assert "60 rows in = 0 ok + 60 failed" in result.err
    assert "ended_by" not in json.loads((cli.folder / "out.summary.json").read_text())


def test_lines_that_may_be_answered_another_time_keep_the_journal(cli):
    cli.write("in.jsonl", lines(40, "sim"))
    refuses = 'faults=[{"kind": "refuse", "marker": "number 7."}, {"kind": "die", "marker": "number 8."}]'
    result = cli.run(*BATCH, "--engine", "sim", "--set", refuses, "--retries", "0")
    assert result.code == 0, result
    assert "2 of them may be answered another time: the same command with --overwrite asks these alone" in result.err
    assert {row["custom_id"] for row in cli.read("out.errors.jsonl")} == {"id-7", "id-8"}
    assert "WARNING" not in result.err  # the file tells what each of them met
    result = cli.run(*BATCH, "--engine", "sim")
    assert result.code == 2
    assert "replace it with --overwrite" in result.err
    result = cli.run(*BATCH, "--engine", "sim", "--overwrite")
    assert result.code == 0, result
    assert "38 answers of earlier runs are in the journal" in result.err
    assert json.loads((cli.folder / "out.summary.json").read_text())["replayed"] == 38
    assert {row["custom_id"] for row in cli.read("out.jsonl")} == {f"id-{i}" for i in range(40)}
    assert not (cli.folder / "out.jsonl.journal").exists()


def test_lines_that_can_never_be_answered_keep_no_journal(cli):
    cli.write("in.jsonl", [*lines(3, "sim"), {"custom_id": "x"}, *lines(1, "other")])
    result = cli.run(*BATCH, "--engine", "sim")
    assert "2 failed lines" in result.err
    assert "another time" not in result.err
    assert not (cli.folder / "out.jsonl.journal").exists()


def test_lines_call_the_one_model_of_an_endpoint_as_it_does(cli):
    process = cli.start("serve", "some-model", "--engine", "sim", "--port", "0")
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0].removesuffix("/v1")
    cli.write("in.jsonl", lines(3, "some-model"))
    result = cli.run(*BATCH, "--engine", "openai", "--set", f"base_url={url}/v1")
    assert result.code == 0, result
    assert len(cli.read("out.jsonl")) == 3
    cli.interrupt(process)


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "failed"), [((), False), (("--outage-timeout", "0"), True)])
def test_rows_wait_for_an_endpoint_that_is_started_anew(cli, flags, failed):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = ("serve", "--engine", "sim", "--port", str(port), "--set", "tpot=0.02")
    first = cli.start(*serve)
    wait_for_line(first.stderr, "Ctrl-C stops it")
    cli.write("in.jsonl", rows(200))
    endpoint = ("--engine", "openai", "--set", f"base_url=http://127.0.0.1:{port}/v1", "--set", "max_retries=0")
    more = ("--sampling", "max_tokens=8", "--concurrency", "4", "--retries", "1", "--max-unreachable", "0", *flags)
    run = cli.start("run", "in.jsonl", "-", *endpoint, *more)
    for _ in range(10):
        assert run.stdout.readline()
    first.kill()
    time.sleep(5)  # the one repetition comes a second after the loss
    second = cli.start(*serve)
    out, err = run.communicate(timeout=60)
    lost = [row for row in map(json.loads, out.splitlines()) if row["error"] is not None]
    assert bool(lost) is failed
    assert ("rows wait for it, 300 s at most (outage_timeout)" in err) is not failed
    assert ("the engine answers again, after" in err) is not failed
    cli.interrupt(second)
