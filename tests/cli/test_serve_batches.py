"""Batches of a served model: the folder is looked at early, and a kill of the whole process loses nothing."""

import json
import os
import signal
import time

import openai
import pytest
from cli_lines import wait_for_line

SIM = ("--engine", "sim", "--name", "m", "--port", "0")


def serve(cli, *arguments):
    process = cli.start("serve", *SIM, "--batch-folder", "batches", *arguments)
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    return process, openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def wait(client, batch, condition):
    end = time.monotonic() + 60
    while not condition(seen := client.batches.retrieve(batch.id)):
        assert time.monotonic() < end, seen
        time.sleep(0.05)
    return seen


def line(number):
    body = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": f"Say {number}"}]}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


@pytest.mark.slow
def test_a_kill_loses_nothing_and_a_stop_waits_for_no_batch(cli):
    process, client = serve(cli, "--set", "tpot=0.05")
    with client:
        data = "".join(json.dumps(line(number)) + "\n" for number in range(200)).encode()
        made = client.files.create(file=("in.jsonl", data), purpose="batch")
        batch = client.batches.create(input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h")
        wait(client, batch, lambda seen: seen.request_counts.completed > 10)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    folder = cli.folder / "batches" / "everybody" / "batches" / batch.id
    first = folder.joinpath("results-1.jsonl").read_bytes().count(b"\n")
    process, client = serve(cli, "--set", "tpot=0.05", "--drain", "60")
    with client:
        wait(client, batch, lambda seen: seen.request_counts.completed > first)
    result = cli.interrupt(process)
    assert "in flight" not in result.err, "lines of batches keep nobody waiting"
    assert "Traceback" not in result.err
    process, client = serve(cli)
    with client:
        done = wait(client, batch, lambda seen: seen.status == "completed")
        found = [json.loads(one) for one in client.files.content(done.output_file_id).text.splitlines()]
    assert done.request_counts.completed == 200
    assert sorted(one["custom_id"] for one in found) == sorted(f"r{number}" for number in range(200))
    owners = [one["id"].split("-")[1] for one in found]
    assert set(owners) == {"1", "2", "3"}
    assert owners.count("1") == first, "what was on disk is not asked again"
    assert "Traceback" not in cli.interrupt(process).err


def test_a_folder_that_cannot_be_is_found_out_before_the_engine_starts(cli):
    (cli.folder / "taken").touch()
    result = cli.run("serve", *SIM, "--batch-folder", "taken", "--set", "startup_seconds=30")
    assert result.code == 2
    assert "error: batches.folder:" in result.err
    assert "name another folder" in result.err
