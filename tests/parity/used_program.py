"""Start an engine, use it once, and print what it was made of, as JSON: processes and compute threads.

Run by a test as a program of its own: how many threads there are is settled once per process.
"""

import asyncio
import contextlib
import json
import sys
import threading

import psutil

import trunnion
from trunnion import GenerateRequest, SamplingParams, TextPrompt

COMPUTED: dict[int, int] = {}
"""torch's threads in each thread of this process that computed, by its number."""


class ComputeThreads:
    """A method that vLLM adds to its workers."""

    def compute_threads(self) -> int:
        import torch

        return torch.get_num_threads()


def watch_torch() -> None:
    """Note the compute threads of whoever runs a layer in this process."""
    import torch

    forward = torch.nn.Linear.forward

    def noted(self, *args):
        COMPUTED[threading.get_ident()] = torch.get_num_threads()
        return forward(self, *args)

    torch.nn.Linear.forward = noted


def processes() -> list[str]:
    """Return how the processes below this one are called, what multiprocessing needs itself left out."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(child.cmdline()))
    return sorted(name for name in found if name and "resource_tracker" not in name)


async def main(name: str, model: str, config: dict) -> None:
    if name == "transformers":
        watch_torch()
    async with trunnion.open_pipeline(trunnion.engine_spec(name, model or None, config)) as pipeline:
        sampling = SamplingParams(temperature=0.0, max_tokens=4)
        answer = await pipeline.complete(GenerateRequest(prompt=TextPrompt(text="Once"), sampling=sampling))
        assert answer.usage.completion_tokens > 0
        workers = await pipeline.engine._llm.collective_rpc("compute_threads") if name == "vllm" else []
        family = processes()
        memory = psutil.Process().memory_info().rss
    seen = {
        "threads": workers or sorted(COMPUTED.values()),
        "processes": family,
        "memory": memory,
        "torch": "torch" in sys.modules,
        "ray": "ray" in sys.modules,
    }
    print("SEEN " + json.dumps(seen), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
