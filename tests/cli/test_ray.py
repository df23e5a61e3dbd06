"""The same command on Ray: the same file comes out, the same API answers, and Ctrl-C leaves nothing behind."""

import json
import os
import signal
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from cli_lines import wait_for_line

pytestmark = pytest.mark.ray


def test_a_batch_on_ray_writes_what_a_batch_in_process_writes(cli):
    rows = [{"id": i, "prompt": f"say {i}", "sampling_params": {"max_tokens": 3}} for i in range(300)]
    rows[4] = {"id": "four", "messages": [{"role": "user", "content": "hi"}], "note": {"odd": [1, None]}}
    rows[5] = {"id": 5, "prompt_token_ids": [1, 2, 3]}
    rows[6] = {"id": 6, "sampling_params": {"temprature": 1}, "prompt": "x"}
    with cli.write("in.jsonl", rows).open("a", encoding="utf-8") as file:
        file.write("\n\n{not json\n")
    common = ("--engine", "sim", "--set", "seed=3", "--sampling", "max_tokens=7")
    assert cli.run("run", "in.jsonl", "here.jsonl", *common).code == 0
    replicas = str(min(os.cpu_count() or 1, 4))  # as many as there are CPUs: one more is needed to read
    result = cli.run("run", "in.jsonl", "ray.jsonl", *common, "--ray", "--replicas", replicas, timeout=150)
    assert result.code == 0, result
    assert "301 rows in = 299 ok + 2 failed;" in result.err
    assert "2 invalid_argument, such as row 7: " in result.err
    assert cli.read("ray.jsonl") == cli.read("here.jsonl")
    assert "line 303 is not valid JSON" in cli.read("ray.jsonl")[-1]["error"]["message"]


def test_ctrl_c_in_a_batch_on_ray(cli, tmp_path, until):
    cli.write("in.jsonl", [{"prompt": "x"} for _ in range(2000)])
    slow = ("--set", "ttft=0.05", "--set", "slots=16")
    process = cli.start("run", "in.jsonl", "out.jsonl", "--engine", "sim", "--ray", *slow)
    until(
        lambda: any(path.stat().st_size for path in tmp_path.glob(".out.jsonl.*.tmp")) or process.poll() is not None,
        seconds=120,
    )
    result = cli.interrupt(process, signal.SIGINT, timeout=40)
    assert result.code == 130, result
    assert "rows are kept in" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out.jsonl").exists()


def test_serving_on_ray_until_ctrl_c(cli):
    process = cli.start("serve", "--engine", "sim", "--name", "m", "--ray", "--port", "0")
    said = wait_for_line(process.stderr, "Ctrl-C stops it")
    url = said.partition(" at ")[2].split()[0]
    body = {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.load(response)["usage"]["completion_tokens"] == 2
    result = cli.interrupt(process, timeout=60)
    assert result.code == 130, result


def complete(url, begun, **body):
    """Return what a completion sends; set the event once it has begun to come."""
    body = {"model": "m", "prompt": "hello", "max_tokens": 100, "ignore_eos": True, **body}
    asked = urllib.request.Request(
        f"{url}/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as response:
        said = response.readline()
        begun.set()
        return (said + response.read()).decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_in_flight_ends_first(cli, until, number):
    flags = ("--set", "tpot=0.03", "--drain", "30")
    process = cli.start("serve", "--engine", "sim", "--name", "m", "--ray", "--port", "0", *flags)
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    begun = threading.Event()

    def running():
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("trunnion_engine_running"))

    with ThreadPoolExecutor(2) as threads:
        stream = threads.submit(complete, url, begun, stream=True)
        plain = threads.submit(complete, url, threading.Event())
        assert begun.wait(timeout=30)
        until(lambda: running() == 2)
        process.send_signal(number)
        out, err = process.communicate(timeout=90)
        assert stream.result().endswith("data: [DONE]\n\n")
        assert json.loads(plain.result())["usage"]["completion_tokens"] == 100
    assert process.returncode == 128 + number, err
    assert "stopping, 30 s at most" in err
    assert "Traceback" not in out + err


def test_the_second_ctrl_c_ends_it_at_once(cli, until):
    flags = ("--set", "tpot=1", "--drain", "600")
    process = cli.start("serve", "--engine", "sim", "--name", "m", "--ray", "--port", "0", *flags)
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    begun = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        stream = threads.submit(complete, url, begun, stream=True, max_tokens=1000)
        assert begun.wait(timeout=30)
        process.send_signal(signal.SIGINT)
        wait_for_line(process.stderr, "stopping, 600 s at most")
        # One that follows at once is taken for the first one again.
        until(lambda: (process.send_signal(signal.SIGINT), process.poll())[1] is not None, seconds=60)
        assert process.returncode == 130
        assert stream.exception(timeout=30) is not None or "[DONE]" not in stream.result()


def test_ctrl_c_while_a_model_starts(cli, until):
    process = cli.start("serve", "--engine", "sim", "--ray", "--port", "0", "--set", "startup_seconds=300")
    wait_for_line(process.stderr, "starting 1 x sim on Ray")
    until(lambda: any("ServeReplica" in command for command in cli.commands(process)), seconds=60)
    result = cli.interrupt(process, timeout=60)
    assert result.code == 130, result
    assert "Traceback" not in result.err


def test_a_model_that_cannot_start_is_told_in_a_line(cli):
    result = cli.run("serve", "--engine", "sim", "--ray", "--port", "0", "--set", "tokenizer=/nowhere", timeout=120)
    assert result.code == 1, result
    assert "error: the model cannot be served: " in result.err
    assert "/nowhere" in result.err.splitlines()[-1]
    assert "fault of trunnion's" not in result.err
