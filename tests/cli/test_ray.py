"""The same command on Ray: the same file comes out, the same API answers, and Ctrl-C leaves nothing behind."""

import json
import os
import signal
import urllib.request

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
