"""Compare the engines on the same work in process, and each with its library called bare.

    python benches/engines.py                         # every engine that runs here
    python benches/engines.py vllm --concurrency 32 --pairs 9

Each engine runs in a process of its own. There, at each number of requests in flight, the pipeline and the bare
library answer the same questions in turn (A B A B ...): both template, tokenize, generate forced tokens and give text.
Bare is ``AsyncLLM.generate`` for vLLM, on the very engine that the pipeline mounts, and transformers' continuous
batching manager, on the very weights that the pipeline mounts and with the sizes that the plugin chose, but with no
more than 32 requests in a step: its own attention costs their square, and is slower with more. Beside every speed
stands the share of the 30 demo prompts whose greedy text is the expected one.

Writes benches/results/engines.json and .md. What was measured before on the same machine stays, unless it is measured
again or the engine's library is another one; so a run may be cut in slices:

    for n in 1 8 32 128; do python benches/engines.py transformers --concurrency $n; done
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from processes import ENGINE_ENVIRONMENT
from stats import paired_ratio

RESULTS = Path(__file__).parent / "results"
SETTINGS: dict[str, dict[str, Any]] = {
    "vllm": {"enforce_eager": True, "max_model_len": 1024, "dtype": "float32"},
    "transformers": {"dtype": "float32"},
}
Times = tuple[float, float, int]
"""Of one request: seconds to its first token, to its end, and its tokens."""
Ask = Callable[[int], Awaitable[Times]]


class Work:
    """Hold the questions; every request is a little different, so that no prefix cache answers it whole."""

    def __init__(self, tokens: int) -> None:
        from trunnion_demo import PROMPTS

        self.tokens = tokens
        self.questions = [prompt.messages for prompt in PROMPTS if not prompt.tools]
        self.number = 0
        self.at_end: list[Callable[[], None]] = []

    def messages(self, index: int) -> list[dict[str, Any]]:
        *before, last = self.questions[index % len(self.questions)]
        self.number += 1
        return [*before, {**last, "content": f"{self.number}: {last['content']}"}]


def pipelined(pipeline: Any, work: Work) -> Ask:
    """Return how the pipeline is asked."""
    from trunnion import GenerateRequest, MessagesPrompt, SamplingParams

    sampling = SamplingParams(temperature=0.0, max_tokens=work.tokens, ignore_eos=True)

    async def ask(index: int) -> Times:
        began, first, tokens = time.perf_counter(), 0.0, 0
        request = GenerateRequest(prompt=MessagesPrompt(messages=tuple(work.messages(index))), sampling=sampling)
        async with aclosing(pipeline.generate(request)) as events:
            async for event in events:
                first = first or time.perf_counter() - began
                if event.usage is not None:
                    tokens = event.usage.completion_tokens
        return first, time.perf_counter() - began, tokens

    return ask


def bare_vllm(pipeline: Any, work: Work) -> Ask:
    """Return how vLLM is asked without us, on the same AsyncLLM."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    llm = pipeline.engine._llm
    tokenizer = llm.get_tokenizer()
    sampling = SamplingParams(
        temperature=0.0, max_tokens=work.tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA
    )

    async def ask(index: int) -> Times:
        began, first, tokens = time.perf_counter(), 0.0, 0
        messages = work.messages(index)
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        prompt = {"prompt_token_ids": ids}
        async for output in llm.generate(prompt, sampling.clone(), request_id=f"bare-{work.number}-{index}"):
            first = first or time.perf_counter() - began
            tokens += len(output.outputs[0].token_ids)
        return first, time.perf_counter() - began, tokens

    return ask


def bare_transformers(pipeline: Any, work: Work) -> Ask:
    """Return how transformers is asked without us: its own manager and thread, with the sizes that the plugin chose.

    Both sides run the very same weights: of two copies, one may lie 20 % better in memory than the other.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

    details = pipeline.info.details
    tokenizer = AutoTokenizer.from_pretrained(pipeline.info.tokenizer.path)
    model = AutoModelForCausalLM.from_pretrained(pipeline.info.model, dtype="float32")
    model.load_state_dict(pipeline.engine._runner._manager.model.state_dict(), assign=True)
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1),
        continuous_batching_config=ContinuousBatchingConfig(
            **{name: details[name] for name in SIZES},
            max_requests_per_batch=min(BARE_REQUESTS, details["max_requests_per_batch"]),
            use_cuda_graph=False,
            use_async_batching=False,
        ),
    )
    manager.start()
    work.at_end.append(lambda: manager.stop(block=True))

    async def ask(index: int) -> Times:
        began, first = time.perf_counter(), 0.0
        messages = work.messages(index)
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        name = f"bare-{work.number}-{index}"
        done = asyncio.get_running_loop().create_future()

        def receive(output: Any) -> None:
            nonlocal first
            first = first or time.perf_counter() - began
            if output.is_finished() and not done.done():
                done.set_result(output.generated_tokens)

        manager.register_result_handler(name, receive)
        manager.add_request(ids, name, max_new_tokens=work.tokens, streaming=True)
        tokens = await done
        tokenizer.decode(tokens)
        return first, time.perf_counter() - began, len(tokens)

    return ask


SIZES = ("page_size", "num_blocks", "max_batch_tokens")
BARE_REQUESTS = 32
"""Where transformers' own attention is fastest on two cores; 16 and 64 are not far behind."""
BARE: dict[str, Callable[[Any, Work], Ask]] = {"vllm": bare_vllm, "transformers": bare_transformers}


async def load(ask: Ask, *, concurrency: int, requests: int) -> dict[str, float]:
    """Keep ``concurrency`` requests in flight until ``requests`` have been answered."""
    numbers = iter(range(requests))
    times: list[Times] = []

    async def client() -> None:
        for number in numbers:
            times.append(await ask(number))

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    wall = time.perf_counter() - began
    tokens = sum(count for _, _, count in times)
    per_token = [(total - first) / (count - 1) for first, total, count in times if count > 1]
    return {
        "tokens_per_s": tokens / wall,
        "ttft_p50_ms": 1000 * statistics.median(first for first, _, _ in times),
        "per_token_p50_ms": 1000 * statistics.median(per_token),
        "cpu_us_per_token": 1e6 * (time.process_time() - cpu) / tokens,
    }


async def parity(pipeline: Any) -> float:
    """Return the share of the demo prompts whose greedy text is the expected one."""
    from trunnion import GenerateRequest, MessagesPrompt, SamplingParams
    from trunnion_demo import PROMPTS

    asked = [prompt for prompt in PROMPTS if not prompt.tools]

    async def one(prompt: Any) -> bool:
        sampling = SamplingParams(temperature=0.0, max_tokens=prompt.max_tokens)
        request = GenerateRequest(prompt=MessagesPrompt(messages=prompt.messages), sampling=sampling)
        return bool((await pipeline.complete(request)).text.strip() == prompt.expected)

    return statistics.mean(await asyncio.gather(*(one(prompt) for prompt in asked)))


async def child(args: argparse.Namespace) -> dict[str, Any]:
    """Measure one engine, and return all its figures."""
    import psutil

    import trunnion
    from trunnion_demo import model_path

    name = args.engines[0]
    model = None if name == "sim" else str(model_path())
    began = time.perf_counter()
    async with trunnion.open_pipeline(trunnion.engine_spec(name, model, SETTINGS.get(name, {}))) as pipeline:
        report: dict[str, Any] = {"startup_s": time.perf_counter() - began, "library": pipeline.info.library}
        work = Work(args.tokens)
        asks = {"pipeline": pipelined(pipeline, work)}
        if name in BARE:
            asks["bare"] = BARE[name](pipeline, work)
        report["parity"] = await parity(pipeline) if model else None
        report["at"] = {}
        for concurrency in args.concurrency:
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in asks}
            for pair in range(-1, args.pairs):  # the first one warms up
                for side in asks if pair % 2 else reversed(asks):
                    requests = max(4, concurrency * args.rounds)
                    figures = await load(asks[side], concurrency=concurrency, requests=requests)
                    if pair >= 0:
                        runs[side].append(figures)
            report["at"][concurrency] = runs
        for end in work.at_end:
            end()
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        report["memory_mib"] = sum(process.memory_full_info().pss for process in processes) / 2**20
    return report


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one engine's child and return what it reports."""
    command = [sys.executable, __file__, name, "--child", "--pairs", str(args.pairs), "--tokens", str(args.tokens)]
    command += ["--rounds", str(args.rounds), "--concurrency", *map(str, args.concurrency)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **ENGINE_ENVIRONMENT}, check=False, timeout=3600
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"startup_s"')]
    if done.returncode or not lines:
        sys.exit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(lines[-1])


def table(reports: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| engine | in flight | tokens/s | of bare | CPU per token of bare | TTFT p50, ms | per token p50, ms |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, report in sorted(reports.items()):
        for concurrency, runs in sorted(report["at"].items(), key=lambda item: int(item[0])):
            ours, bare = runs["pipeline"], runs.get("bare", [])

            def middle(key: str, ours: list[dict[str, float]] = ours) -> str:
                return f"{statistics.median(run[key] for run in ours):.4g}"

            def ratio(key: str, ours: Any = ours, bare: Any = bare) -> str:
                return str(paired_ratio([run[key] for run in ours], [run[key] for run in bare])) if bare else ""

            cells = [name, concurrency, middle("tokens_per_s"), ratio("tokens_per_s"), ratio("cpu_us_per_token")]
            lines.append(f"| {' | '.join(cells)} | {middle('ttft_p50_ms')} | {middle('per_token_p50_ms')} |")
    lines += ["", "| engine | library | start-up, s | memory, MiB | expected greedy text |", "|---|---|---|---|---|"]
    for name, report in sorted(reports.items()):
        share = "" if report["parity"] is None else f"{report['parity']:.0%}"
        figures = f"{report['startup_s']:.1f} | {report['memory_mib']:.0f} | {share}"
        lines.append(f"| {name} | {report['library']} | {figures} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", default=["sim", "transformers", "vllm"])
    parser.add_argument("--concurrency", nargs="*", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=4, help="requests per run, as a multiple of those in flight")
    parser.add_argument("--tokens", type=int, default=32, help="forced completion tokens")
    parser.add_argument("--name", default="engines", help="of the result files")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(asyncio.run(child(args))), flush=True)
        return
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    command = " ".join(["python", "benches/engines.py", *sys.argv[1:]])
    heading = f"{machine}; {args.tokens} forced tokens per request."
    results = RESULTS / f"{args.name}.json"
    reports = earlier(results, heading)
    for name in args.engines:
        report = measured(name, args)
        print("\n".join(table({name: report})), flush=True)
        reports[name] = joined(reports.get(name), report, command)
        RESULTS.mkdir(exist_ok=True)
        results.write_text(json.dumps({"heading": heading, "engines": reports}, indent=1) + "\n")
    commands = {runs["command"]: None for report in reports.values() for runs in report["at"].values()}
    text = ["# Engines side by side", "", *(f"    {one}" for one in commands), "", heading, ""]
    text += ["*Of bare*: pipeline / bare library, median of the pairs with the 90 % bootstrap interval.", ""]
    (RESULTS / f"{args.name}.md").write_text("\n".join([*text, *table(reports), ""]))


def earlier(results: Path, heading: str) -> dict[str, dict[str, Any]]:
    """Return what was measured before under the same heading."""
    held = json.loads(results.read_text()) if results.exists() else {}
    return held["engines"] if held.get("heading") == heading else {}


def joined(before: dict[str, Any] | None, report: dict[str, Any], command: str) -> dict[str, Any]:
    """Return a report together with what was measured of the same library before."""
    at = {number: {**runs, "command": command} for number, runs in report["at"].items()}
    if before is not None and before["library"] == report["library"]:
        at = {**before["at"], **at}
    return {**report, "at": at}


if __name__ == "__main__":
    main()
