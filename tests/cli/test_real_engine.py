"""One run on a real engine, chosen without being named: answers, an adapter, and Ctrl-C with its processes up."""

import json
import os
import signal
import subprocess

import pytest
from cli_lines import wait_for_line

import trunnion_demo

ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


@pytest.mark.engine
def test_rows_are_answered_by_vllm_and_ctrl_c_takes_all_of_it_down(cli):
    pytest.importorskip("vllm")
    adapter = next(iter(trunnion_demo.adapter_paths()))
    process = cli.start(
        "run", "-", "-", trunnion_demo.model_path(),
        "--set", "max_model_len=512", "--set", "enforce_eager=true",
        "--adapter", f"{adapter}={trunnion_demo.adapter_paths()[adapter]}",
        "--sampling", "temperature=0", "--sampling", "max_tokens=40",
        env=ENV, stdin=subprocess.PIPE,
    )  # fmt: skip
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answers = []
    for model in (None, adapter):
        process.stdin.write(json.dumps({"messages": messages, "model": model}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, process.stderr.read()
        row = json.loads(line)
        assert row["error"] is None
        answers.append(row["generated_text"])
    assert "paris" in answers[0].lower()
    assert answers[1] != answers[0]
    os.killpg(process.pid, signal.SIGINT)
    wait_for_line(process.stderr, "rows in flight are finished first")  # before its input ends
    out, err = process.communicate(timeout=40)
    assert process.returncode == 130, out + err
