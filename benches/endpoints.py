"""Measure how fast endpoints are asked: one Ray actor of ours against one of Ray's, and adaptive against fixed numbers.

A server in a process of its own answers after 100 ms. *batch*: rows are posted to it by one actor of our
``HttpRequestProcessorConfig`` and one of ``ray.data.llm``'s, in turn, and by one replica of the engine ``openai``; it
counts the rows per second from its first request to its last answer, so that neither side's start counts. *knee*: the
server does so many requests at once; more wait ("queue"), slow all of them down ("slow"), or are refused with 429
("refuse"). The engine asks it with fixed numbers of requests in flight and with the adaptive one, which starts anew.

    PYTHONPATH=core:plugins:adapters:benches python benches/endpoints.py [--pairs 3] [--rows 300] [--name endpoints]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop

from stats import paired_ratio
from trunnion import GenerateRequest, MessagesPrompt, collect
from trunnion.errors import TrunnionError
from trunnion_openai.config import OpenAIConfig
from trunnion_openai.engine import OpenAIEngine

SECONDS: Final = 0.1
"""What a row of a batch takes."""
LONG: Final = 0.2
"""What a request to the server with a knee takes: the client is to be idle for most of it, on two cores as well."""
KNEE: Final = 24
SWEEP: Final = (8, 16, 24, 32, 48, 96)
BEYOND: Final = ("queue", "slow", "refuse")
ANSWER: Final = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}
MESSAGES: Final[Any] = ({"role": "user", "content": "Hi"},)


class Load:
    """Hold one way of the server to answer, and what it has done."""

    def __init__(self, beyond: str) -> None:
        self.beyond = beyond
        self.busy = self.peak = self.served = self.refused = 0
        self.first = self.last = 0.0
        self.waiting: list[Any] = []

    def ask(self, reply: Any) -> None:
        """Take a request."""
        self.first = self.first or time.monotonic()
        if self.beyond == "refuse" and self.busy >= KNEE:
            self.refused += 1
            reply(429, {"error": {"message": "too many"}})
            return
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        if self.beyond == "queue" and self.busy > KNEE:
            self.waiting.append(reply)
        else:
            self.start(reply)

    def start(self, reply: Any) -> None:
        """Answer after its time."""
        slower = max(1.0, self.busy / KNEE) ** 2 if self.beyond == "slow" else 1.0
        asyncio.get_running_loop().call_later((SECONDS if self.beyond == "flat" else LONG) * slower, self.done, reply)

    def done(self, reply: Any) -> None:
        """Answer, and turn to the next."""
        self.busy -= 1
        self.served += 1
        self.last = time.monotonic()
        if self.waiting:
            self.start(self.waiting.pop(0))
        reply(200, ANSWER)

    def figures(self) -> dict[str, float]:
        """Return what it has done."""
        return {
            "served": self.served,
            "refused": self.refused,
            "peak": self.peak,
            "seconds": self.last - self.first,
            "now": time.monotonic(),
        }


class Server(asyncio.Protocol):
    """Speak as much HTTP as the benchmark needs: /BEYOND/..., and /figures/BEYOND, which begins anew unless "?keep"."""

    loads: Final = {name: Load(name) for name in ("flat", *BEYOND)}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, found, body = self.waiting.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0) if found else -1
        if not found or len(body) < length:
            return
        self.waiting = b""
        _, first, second, *_ = head.split(b" ", 2)[1].decode().split("/")
        if first == "figures":
            load = self.loads[second.partition("?")[0]]
            self.reply(200, load.figures())
            if "?" not in second:
                self.loads[load.beyond] = Load(load.beyond)  # what is under way stays with the old one
        else:
            self.loads[first].ask(self.reply)

    def reply(self, status: int, value: Any) -> None:
        """Write an answer."""
        if not self.transport.is_closing():
            body = json.dumps(value).encode()
            head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)


def serve(pipe: Any) -> None:
    """Serve until something comes through the pipe."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    uvloop.run(main())


def figures(url: str, beyond: str, *, keep: bool = False) -> dict[str, float]:
    """Return what the server has done, which it then forgets."""
    got: dict[str, float] = httpx.get(f"{url}/figures/{beyond}{'?keep' if keep else ''}", timeout=60).json()
    return got


def rows_per_second(url: str, processor: Any, rows: int) -> dict[str, float]:
    """Run a batch; its rows per second, between the server's first request and its last answer, and the whole time."""
    import ray

    figures(url, "flat")
    began = time.monotonic()
    out = processor(ray.data.range(rows, override_num_blocks=1)).take_all()
    wall = time.monotonic() - began
    assert len(out) == rows, len(out)
    got = figures(url, "flat")
    assert got["served"] == rows, got
    return {
        "rows": rows,
        "rows_per_s": round(rows / got["seconds"], 1),
        "peak_in_flight": got["peak"],
        "job_s": round(wall, 1),
    }


def payload(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a request."""
    return {"id": row["id"], "payload": {"model": "m", "messages": list(MESSAGES), "max_tokens": 1}}


def batch(url: str, pairs: int, rows: int) -> dict[str, Any]:
    """Measure one actor of each side, in turn."""
    import ray
    from ray.data.llm import HttpRequestProcessorConfig as TheirConfig
    from ray.data.llm import build_processor as build_theirs

    from trunnion_ray.data import HttpRequestProcessorConfig, ProcessorConfig, build_processor

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    target = f"{url}/flat/v1/chat/completions"
    ours = build_processor(HttpRequestProcessorConfig(url=target, concurrency=1), preprocess=payload)
    theirs = build_theirs(TheirConfig(url=target, concurrency=1, batch_size=64), preprocess=payload)
    settings = {"base_url": f"{url}/flat/v1", "check_endpoint": False}
    engine = build_processor(
        ProcessorConfig(engine="openai", model="m", config=settings, concurrency=1),
        preprocess=lambda row: {"id": row["id"], "messages": list(MESSAGES)},
    )
    made: dict[str, Any] = {"ours": [], "theirs": []}
    for number in range(pairs):
        for name, processor in (("ours", ours), ("theirs", theirs)):
            made[name].append(rows_per_second(url, processor, rows))
            print(f"batch {number} {name:8s} {made[name][-1]}", flush=True)
    for name, processor in (("ours_many", ours), ("engine_many", engine)):
        made[name] = [rows_per_second(url, processor, 20 * rows) for _ in range(pairs)]
        print(f"batch   {name:8s} {made[name]}", flush=True)
    ray.shutdown()
    speeds = {name: [one["rows_per_s"] for one in runs] for name, runs in made.items()}
    made["ratio"] = str(paired_ratio(speeds["ours"], speeds["theirs"]))
    made["ratio_many"] = str(paired_ratio(speeds["ours_many"], speeds["theirs"]))
    made["ratio_engine"] = str(paired_ratio(speeds["engine_many"], speeds["theirs"]))
    return made


async def asked(url: str, beyond: str, seconds: float, settle: float, **config: Any) -> dict[str, float]:
    """Ask for so long with more callers than there are places; the rates are the answers per second."""
    figures(url, beyond)
    settings = OpenAIConfig(
        base_url=f"{url}/{beyond}/v1",
        check_endpoint=False,
        retry_backoff=0.05,
        max_retries=5,
        retry_budget=1.0,
        **config,
    )
    engine = OpenAIEngine("m", settings)
    await engine.start()
    request = GenerateRequest(prompt=MessagesPrompt(messages=MESSAGES), delivery="final")
    failed = 0
    began = time.monotonic()

    async def caller() -> None:
        nonlocal failed
        while time.monotonic() < began + seconds:
            try:
                await collect(engine.generate(request))
            except TrunnionError:
                failed += 1

    callers = [asyncio.ensure_future(caller()) for _ in range(400)]
    await asyncio.sleep(settle)
    before = await asyncio.to_thread(figures, url, beyond, keep=True)
    limits = []
    while time.monotonic() < began + seconds:
        await asyncio.sleep(0.1)
        limits.append(engine.load().capacity or 0)
    after = await asyncio.to_thread(figures, url, beyond, keep=True)
    last = (after["served"] - before["served"]) / (after["now"] - before["now"])
    whole = after["served"] / after["seconds"]
    for one in callers:
        one.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await engine.stop()
    return {
        "per_s": round(last, 1),
        "per_s_from_the_start": round(whole, 1),
        "refused": figures(url, beyond)["refused"],
        "failed": failed,
        "limit": statistics.median(limits),
    }


def knee(url: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Sweep fixed numbers, and let the adaptive one find its own."""
    made: dict[str, Any] = {}
    for beyond in BEYOND:
        runs: dict[str, list[Any]] = {str(number): [] for number in (*SWEEP, "adaptive")}
        for number in range(rounds):
            for limit in SWEEP:
                fixed = asked(url, beyond, seconds / 4, 1.5, concurrency="fixed", max_concurrency=limit)
                runs[str(limit)].append(asyncio.run(fixed))
            runs["adaptive"].append(asyncio.run(asked(url, beyond, seconds, seconds / 2, max_concurrency=256)))
            print(f"knee {beyond} {number} { ({name: run[-1]['per_s'] for name, run in runs.items()}) }", flush=True)
        medians = {name: statistics.median(run["per_s"] for run in one) for name, one in runs.items()}
        best = max((name for name in medians if name != "adaptive"), key=medians.__getitem__)
        pairs = {
            key: str(paired_ratio([run[key] for run in runs["adaptive"]], [run["per_s"] for run in runs[best]]))
            for key in ("per_s", "per_s_from_the_start")
        }
        made[beyond] = {"runs": runs, "medians": medians, "best_fixed": int(best), "adaptive_to_best": pairs}
    return made


def page(table: dict[str, Any]) -> str:
    """Write the results as a page."""
    lines = ["# Endpoints", "", f"`{table['command']}`", ""]
    lines += [f"{table['cpus']} cores; load average before {table['load_before']}, after {table['load_after']}.", ""]
    if table.get("batch"):
        made = table["batch"]
        lines += [
            f"One actor, a server that answers after {SECONDS * 1000:.0f} ms; medians of {table['pairs']}.",
            "",
            "| side | rows | rows/s | most in flight | job, s | to `ray.data.llm` |",
            "|---|---|---|---|---|---|",
        ]
        names = {
            "theirs": ("`ray.data.llm`", "1"),
            "ours": ("`HttpRequestProcessorConfig`", made["ratio"]),
            "ours_many": ("`HttpRequestProcessorConfig`", made["ratio_many"]),
            "engine_many": ('`ProcessorConfig(engine="openai")`', made["ratio_engine"]),
        }
        for name, (title, ratio) in names.items():
            value = {key: statistics.median(run[key] for run in made[name]) for key in made[name][0]}
            lines.append(
                f"| {title} | {value['rows']:.0f} | {value['rows_per_s']:.0f} | {value['peak_in_flight']:.0f} "
                f"| {value['job_s']:.1f} | {ratio} |"
            )
        lines.append("")
    if table.get("knee"):
        lines += [
            f"A server that does {KNEE} requests at once, {LONG * 1000:.0f} ms each; answers per second by requests",
            "in flight: fixed, and adaptive after it searched; its ratio to the best, without and with the search.",
            "",
            f"| beyond | {' | '.join(str(limit) for limit in SWEEP)} | adaptive | to the best | with the search |",
            f"|---|{'---|' * (len(SWEEP) + 3)}",
        ]
        for beyond, one in table["knee"].items():
            cells = [f"{one['medians'][str(name)]:.0f}" for name in (*SWEEP, "adaptive")]
            ratios = one["adaptive_to_best"]
            lines.append(f"| {beyond} | {' | '.join(cells)} | {ratios['per_s']} | {ratios['per_s_from_the_start']} |")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=300, help="rows of a batch; twenty times as many of ours alone")
    parser.add_argument("--rounds", type=int, default=3, help="of the sweep")
    parser.add_argument("--seconds", type=float, default=24.0, help="of the adaptive run; a quarter for each fixed one")
    parser.add_argument("--only", choices=["batch", "knee"])
    parser.add_argument("--name", help="write benches/results/NAME.json and .md")
    args = parser.parse_args()
    load_before = [round(x, 1) for x in os.getloadavg()]
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{pipe.recv()}"
    given = "".join(f" --{name} {value}" for name, value in vars(args).items() if value is not None)
    table: dict[str, Any] = {
        "command": f"PYTHONPATH=core:plugins:adapters:benches python benches/endpoints.py{given}",
        "cpus": os.cpu_count(),
        "pairs": args.pairs,
        "load_before": load_before,
    }
    try:
        if args.only != "batch":
            table["knee"] = knee(url, args.rounds, args.seconds)
        if args.only != "knee":
            table["batch"] = batch(url, args.pairs, args.rows)
    finally:
        pipe.send("stop")
        server.join(10)
    table["load_after"] = [round(x, 1) for x in os.getloadavg()]
    print(page(table))
    if args.name:
        results = Path(__file__).parent / "results"
        (results / f"{args.name}.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
        (results / f"{args.name}.md").write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
