"""Measure how long the steps of a real vLLM take, for the simulated engine to be fitted to.

    python benches/sim_steps.py                       # the demo model on this machine's CPU
    python benches/sim_steps.py --model PATH --set device=cuda --name sim-steps-gpu
    trunnion sim fit benches/results/sim-steps-cpu.json

Through the engine plugin, in process, with forced lengths and no prefix cache. Decode steps: at each batch size and
context length the requests run side by side; a step is the mean time between two tokens of a request, while all of
them decode. Prefill steps: the time to the only token of a single request. Each is measured several times, and the
median counts, or on a machine that others use as well a lower quantile (``--quantile 0``: the fastest). The two are the
``steps`` of the result. The ``run`` is a load of another shape, from a closed loop of clients, that the fitted
simulator is held to; of several the fastest counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

from processes import ENGINE_ENVIRONMENT

RESULTS = Path(__file__).parent / "results"
SETTINGS = {"enforce_eager": True, "dtype": "float32", "enable_prefix_caching": False, "max_num_seqs": 64}


class Clients:
    """Ask with prompts of random tokens, none like the other."""

    def __init__(self, pipeline: Any, quantile: float) -> None:
        self.pipeline = pipeline
        self.quantile = quantile
        self.number = 0

    def typical(self, seconds: list[float]) -> float:
        """Return the quantile, by nearest rank."""
        return sorted(seconds)[round(self.quantile * (len(seconds) - 1))]

    async def ask(self, prompt: int, output: int) -> list[float]:
        """Return the time of asking, then that of each token."""
        from trunnion import GenerateRequest, SamplingParams, TokensPrompt

        self.number += 1
        ids = tuple(100 + (7919 * self.number + 31 * position) % 300 for position in range(prompt))
        sampling = SamplingParams(temperature=0.0, max_tokens=output, ignore_eos=True)
        request = GenerateRequest(prompt=TokensPrompt(token_ids=ids), sampling=sampling, detokenize=False)
        times = [time.perf_counter()]
        async with aclosing(self.pipeline.generate(request)) as events:
            async for event in events:
                times += [time.perf_counter()] * sum(len(choice.token_ids) for choice in event.choices)
        return times

    async def decode(self, batch: int, context: int, output: int) -> dict[str, Any] | None:
        """Measure decode steps; None where the requests were never all in decode."""
        asked = await asyncio.gather(*(self.ask(context, output) for _ in range(batch)))
        begin, end = max(times[1] for times in asked), min(times[-1] for times in asked)
        inside = [at for times in asked for at in times[1:] if begin <= at <= end]
        tokens = len(inside) / batch - 1
        if tokens < 4:
            return None
        return {
            "decodes": batch,
            "context": round(batch * (context + output - tokens / 2)),
            "prefill": 0,
            "seconds": (end - begin) / tokens,
        }

    async def prefill(self, prompt: int, repeats: int) -> dict[str, Any]:
        """Measure the step that computes a whole prompt."""
        seconds = []
        for _ in range(repeats):
            times = await self.ask(prompt, 1)
            seconds.append(times[1] - times[0])
        return {"decodes": 0, "context": prompt, "prefill": prompt, "seconds": self.typical(seconds)}

    async def load(self, concurrency: int, requests: int, prompt: int, output: int) -> dict[str, Any]:
        """Keep so many requests in flight until all are answered."""
        left = iter(range(requests))
        asked: list[list[float]] = []

        async def client() -> None:
            for _ in left:
                asked.append(await self.ask(prompt, output))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(concurrency)))
        wall = time.perf_counter() - began
        return {
            "concurrency": concurrency,
            "requests": requests,
            "prompt_tokens": prompt,
            "output_tokens": output,
            "seconds": wall,
            "output_tokens_per_s": requests * output / wall,
            "ttft_p50": statistics.median(times[1] - times[0] for times in asked),
            "tpot_p50": statistics.median((times[-1] - times[1]) / (output - 1) for times in asked),
        }


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    import trunnion
    from trunnion_demo import model_path

    longest = max(*args.contexts, 128) + args.tokens
    settings = {**SETTINGS, "max_model_len": longest, **dict(pair.split("=", 1) for pair in args.set)}
    model = args.model or str(model_path())
    async with trunnion.open_pipeline(trunnion.engine_spec("vllm", model, settings)) as pipeline:
        clients = Clients(pipeline, args.quantile)
        await clients.load(8, 16, 16, 16)  # warms up
        steps = []
        for batch in args.batches:
            for context in args.contexts:
                if batch * context > args.most:
                    continue
                found = [await clients.decode(batch, context, args.tokens) for _ in range(args.repeats)]
                kept = [step for step in found if step is not None]
                if kept:
                    wanted = clients.typical([step["seconds"] for step in kept])
                    steps.append(next(step for step in kept if step["seconds"] == wanted))
                    print(steps[-1], flush=True)
        steps += [await clients.prefill(context, 2 * args.repeats + 1) for context in args.contexts]
        runs = [await clients.load(16, 64, 128, 48) for _ in range(args.repeats)]
        run = min(runs, key=lambda one: one["seconds"])
        return {"library": pipeline.info.library, "settings": settings, "steps": steps, "run": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the demo model by default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the vllm engine")
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--contexts", nargs="*", type=int, default=[16, 64, 256, 512, 960])
    parser.add_argument("--most", type=int, default=32_768, help="tokens of context in a batch")
    parser.add_argument("--tokens", type=int, default=48, help="forced completion tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quantile", type=float, default=0.5, help="of the times of equal steps, the one that counts")
    parser.add_argument("--name", default="sim-steps-cpu", help="of the result file")
    args = parser.parse_args()
    for name, value in ENGINE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    report = {
        "command": " ".join(["python", "benches/sim_steps.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}",
        **asyncio.run(measure(args)),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["run"]))


if __name__ == "__main__":
    main()
