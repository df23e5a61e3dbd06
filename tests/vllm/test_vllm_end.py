"""The end of vLLM's processes: we bring it about, and nobody else."""

import multiprocessing
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fake_llm import FakeLLM

from trunnion_vllm.launch import shut_down


class Killed:
    """A process that was sent its kill, and is there until somebody waits for its end."""

    def __init__(self):
        self.there = True

    def join(self, timeout=None):
        self.there = False


def test_processes_that_vllm_had_to_kill_are_waited_for():
    llm, processes = FakeLLM(), [Killed(), Killed(), Killed()]
    llm.engine_core = SimpleNamespace(
        resources=SimpleNamespace(
            engine_manager=SimpleNamespace(processes=processes[:2]), coordinator=SimpleNamespace(proc=processes[2])
        )
    )
    shut_down(llm)
    assert llm.calls == [("shutdown",)]
    assert not any(process.there for process in processes)


PROGRAM = """
import multiprocessing, signal, sys, threading
from trunnion_vllm.spawn import without_interrupts

def started():
    with without_interrupts():
        child = multiprocessing.get_context("spawn").Process(target=print, args=("the child ran",))
        child.start()
        print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    child.join()

if __name__ == "__main__":
    thread = threading.Thread(target=started)
    thread.start()
    thread.join()
"""


def test_sigint_is_blocked_while_processes_start_and_no_longer(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    ran = subprocess.run(
        [sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(ran.stdout.split("\n")) == ["", "False", "True", "the child ran"]


@pytest.mark.engine
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="blocked signals are read from /proc")
async def test_ctrl_c_does_not_reach_vllm_s_processes(engine):
    cores = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    family = [process for core in cores for process in (core, *core.children(recursive=True))]
    assert family
    for process in family:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        blocked = int(re.search(r"SigBlk:\s+([0-9a-f]+)", status)[1], 16)
        assert blocked >> (signal.SIGINT - 1) & 1, process.cmdline()
        assert not blocked >> (signal.SIGTERM - 1) & 1, process.cmdline()
