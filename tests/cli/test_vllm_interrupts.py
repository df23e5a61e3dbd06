"""Ctrl-C with vLLM's processes up: what the user reads afterwards is ours."""

import os
import select
import signal
import subprocess

import pytest
from cli_lines import wait_for_line

import trunnion_demo

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
VLLM = ("--engine", "vllm", "--set", "enforce_eager=true", "--set", "max_model_len=512")


def complaints(text):
    """Return the lines in which a library tells of what it takes for a failure."""
    return [line for line in text.splitlines() if "Traceback" in line or " ERROR " in line or "Error:" in line]


def test_an_answer_is_stopped_and_the_engine_goes_on_to_the_next(cli):
    pytest.importorskip("vllm")
    process = cli.start(
        "chat", trunnion_demo.model_path(), *VLLM, "--sampling", "max_tokens=400", "--sampling", "min_tokens=400",
        env=ENV, stdin=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(2):
        process.stdin.write("What is the capital of France?\n")
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 1000)  # the answer has begun
        os.killpg(process.pid, signal.SIGINT)
        assert complaints(wait_for_line(process.stderr, "stopped")) == []
        while select.select([process.stdout], [], [], 0)[0]:  # the rest of what was said until then
            assert os.read(process.stdout.fileno(), 1000)
    result = cli.interrupt(process, timeout=90)
    assert result.code == 130, result
    assert complaints(result.err) == []


def test_a_start_is_given_up_in_silence(cli, until):
    pytest.importorskip("vllm")
    cli.write("in.jsonl", [{"prompt": "x"}])
    process = cli.start("run", "in.jsonl", "out.jsonl", trunnion_demo.model_path(), *VLLM, env=ENV)
    until(lambda: any("EngineCore" in line for line in below(process.pid)), seconds=300)
    result = cli.interrupt(process, timeout=90)
    assert result.code == 130, result
    assert complaints(result.err) == []
    assert result.err.splitlines()[-1] == "interrupted; nothing was written"


def below(pid):
    """Return the command lines of the processes below one."""
    listed = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split(None, 1)[0] == str(pid)]
