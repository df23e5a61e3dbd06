"""The end of vLLM's processes, on a stand-in: a real one is killed only where the machine is slow."""

from types import SimpleNamespace

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
