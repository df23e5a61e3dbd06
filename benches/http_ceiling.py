"""Measure what the HTTP surface costs, against the same work done by hand in forty lines of raw ASGI.

No engine: a model that yields ready-made events, giving way to the loop before each as a real one does. Each server
runs in a process of its own, the client in this one, and they take turns (A B A B ...). The figures that matter are
the server's own CPU time per request and per streamed event; requests/s depends on where the client runs.

*sim* is the whole way: the app, a pipeline with its checks, and the simulated engine, which answers at once; its own
work is in the figure. After that each way of ours is profiled once, and the table says where the time goes.

    PYTHONPATH=core:plugins:adapters:benches python benches/http_ceiling.py [--rounds 7] [--requests 3000]

Writes benches/results/http_ceiling.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import multiprocessing
import os
import pstats
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop

import trunnion
from http_client import LoadResult, http_request, run_load
from trunnion.engine import EngineInfo
from trunnion.events import ChoiceDelta, GenerateEvent, Usage
from trunnion_http import ModelDirectory, PipelineModel, create_app, make_server

EVENTS = 16
SERVERS = ("by_hand", "trunnion", "sim")
RESULTS = Path(__file__).parent / "results"
_PARTS = 16
_DELTAS = [GenerateEvent(choices=(ChoiceDelta(text=f" token{i}", token_ids=(i,)),)) for i in range(EVENTS - 1)]
_LAST = GenerateEvent(
    choices=(ChoiceDelta(text=" end", token_ids=(99,), finish_reason="length"),),
    usage=Usage(prompt_tokens=12, completion_tokens=EVENTS),
)
_FINAL = GenerateEvent(
    choices=(ChoiceDelta(text=" token" * EVENTS, token_ids=tuple(range(EVENTS)), finish_reason="length"),),
    usage=Usage(prompt_tokens=12, completion_tokens=EVENTS),
)


async def scripted(*, final: bool) -> AsyncGenerator[GenerateEvent, None]:
    if final:
        await asyncio.sleep(0)
        yield _FINAL
        return
    for event in _DELTAS:
        await asyncio.sleep(0)
        yield event
    await asyncio.sleep(0)
    yield _LAST


class Model:
    name = "m"
    info = EngineInfo(engine="none", model="none")
    adapters = ()
    ready = True

    def generate(self, request: Any) -> AsyncGenerator[GenerateEvent, None]:
        return scripted(final=request.delivery == "final")

    async def embed(self, prompts: Any, *, dimensions: Any = None, adapter: Any = None) -> Any:
        raise NotImplementedError

    async def check_health(self) -> None:
        return None


async def by_hand(scope: Any, receive: Any, send: Any) -> None:
    """Do the same work with nothing around it: no validation, no errors, no limits, nobody watching for hang-ups."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    body = msgspec.json.decode((await receive())["body"])
    start = {"id": f"chatcmpl-{time.time_ns():x}", "created": int(time.time()), "model": body["model"]}
    usage = {"prompt_tokens": 12, "completion_tokens": EVENTS, "total_tokens": 12 + EVENTS}
    if not body.get("stream"):
        async for event in scripted(final=True):
            text = event.choices[0].text
        message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
        data = msgspec.json.encode({**start, "object": "chat.completion", "choices": [message], "usage": usage})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})
        return
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    start["object"] = "chat.completion.chunk"
    async for event in scripted(final=False):
        delta = event.choices[0]
        choice = {"index": 0, "delta": {"content": delta.text}, "finish_reason": delta.finish_reason}
        frame = b"data: " + msgspec.json.encode({**start, "choices": [choice]}) + b"\n\n"
        await send({"type": "http.response.body", "body": frame, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _simulated() -> uvicorn.Server:
    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncGenerator[None, None]:
        spec = trunnion.engine_spec("sim", "sim", {"ttft": 0.0, "tpot": 0.0, "max_num_seqs": 64})
        async with trunnion.open_pipeline(spec) as pipeline:
            directory.add(PipelineModel("m", pipeline))
            yield

    return make_server(create_app(directory, lifespan=lifespan), port=0)


def _server(which: str) -> uvicorn.Server:
    if which == "trunnion":
        return make_server(create_app([Model()]), port=0)
    if which == "sim":
        return _simulated()
    options: dict[str, Any] = {"loop": "uvloop", "http": "httptools", "ws": "none", "log_config": None}
    options |= {"access_log": False, "proxy_headers": False, "server_header": False, "lifespan": "on"}
    return uvicorn.Server(uvicorn.Config(by_hand, port=0, **options))


def _run_server(which: str, pipe: Any, profile: str) -> None:
    """Serve, and answer every message on the pipe with the CPU time used so far; write a profile to a file if named."""
    server = _server(which)
    profiler = cProfile.Profile()

    async def main() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()

        def asked() -> None:
            wanted = pipe.recv()
            if wanted == "stop":
                profiler.disable()
                loop.remove_reader(pipe.fileno())
                server.should_exit = True
            elif wanted == "profile":
                profiler.enable()
            else:
                pipe.send(time.process_time())

        loop.add_reader(pipe.fileno(), asked)
        await task

    uvloop.run(main())
    if profile:
        profiler.dump_stats(profile)


class Served:
    """One server process."""

    def __init__(self, which: str, *, profile: str = "") -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_run_server, args=(which, theirs, profile), daemon=True)
        self.process.start()
        self.port = self.pipe.recv()

    def cpu(self) -> float:
        self.pipe.send("cpu")
        return float(self.pipe.recv())

    def stop(self) -> None:
        self.pipe.send("stop")
        self.process.join(10)


def _body(*, stream: bool) -> bytes:
    messages = [{"role": "system", "content": "You write haikus."}, {"role": "user", "content": "About the sea."}]
    return json.dumps(
        {"model": "m", "messages": messages, "stream": stream, "max_tokens": EVENTS, "temperature": 0.0}
    ).encode()


def measure(served: Served, *, stream: bool, requests: int, connections: int) -> tuple[LoadResult, float]:
    data = http_request("/v1/chat/completions", _body(stream=stream))
    before = served.cpu()
    result = uvloop.run(run_load(lambda _: data, port=served.port, connections=connections, requests=requests, keep=1))
    assert result.errors == 0, result.summary()
    if stream:
        assert result.samples[0].rstrip().endswith(b"data: [DONE]\n\n\r\n0"), result.samples
    return result, served.cpu() - before


def profiled(which: str, *, stream: bool, requests: int, connections: int) -> list[tuple[str, float]]:
    """Return where a server's time goes: its parts with their shares, the largest first."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/profile"
        served = Served(which, profile=file)
        measure(served, stream=stream, requests=200, connections=connections)
        served.pipe.send("profile")
        measure(served, stream=stream, requests=requests, connections=connections)
        served.stop()
        stats: Any = pstats.Stats(file)
    times: Counter[str] = Counter()
    for (path, _, function), (_, _, own, _, _) in stats.stats.items():
        if "select" not in function and "poll" not in function:  # waiting
            times[_part(path, function)] += own
    total = sum(times.values())
    return [(part, time / total) for part, time in times.most_common(_PARTS)]


def _part(path: str, function: str) -> str:
    if path.endswith("asyncio/runners.py"):
        return "uvloop: reading, and what has no name"
    if path == "~":
        return f"built in: {function.strip('<>')}"
    for root in ("site-packages/", "/core/", "/plugins/", "/adapters/", "/python3.11/", "/python3.12/"):
        if root in path:
            return path.rpartition(root)[2]
    return Path(path).name


def markdown(table: dict[str, Any], command: str) -> str:
    """Return the figures and the profiles as a page."""
    lines = ["# The HTTP surface's ceiling", "", f"`{command}`", ""]
    told = f"{table['cpus']} cores; load average {table['load_average']}"
    lines += [f"{told}; {table['events_per_request']} events a stream."]
    lines += ["", "| mode | server | requests/s per core | CPU us per request | CPU us per streamed event |"]
    lines += ["|---|---|---|---|---|"]
    for mode in ("plain", "stream"):
        for name in SERVERS:
            row = table[f"{mode}/{name}"]
            event = row["server_cpu_us_per_event"] or ""
            per_core, each = row["requests_per_s_per_core"], row["server_cpu_us_per_request"]
            lines.append(f"| {mode} | {name} | {per_core:.0f} | {each} | {event} |")
    for mode in ("plain", "stream"):
        for name in SERVERS[1:]:
            lines += ["", f"Where the time goes, {mode}, {name} (own time under cProfile):", "", "| share | part |"]
            lines += ["|---|---|", *(f"| {share:.1%} | `{part}` |" for part, share in table[f"{mode}/{name}/profile"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=32)
    args = parser.parse_args()
    servers = {name: Served(name) for name in SERVERS}
    table: dict[str, Any] = {"cpus": os.cpu_count(), "events_per_request": EVENTS, "connections": args.connections}
    table["load_average"] = [round(x, 1) for x in os.getloadavg()]  # others at work on the machine show here
    try:
        for stream in (False, True):
            mode = "stream" if stream else "plain"
            runs: dict[str, list[tuple[LoadResult, float]]] = {name: [] for name in SERVERS}
            options: dict[str, Any] = {"stream": stream, "connections": args.connections}
            for name in SERVERS:
                measure(servers[name], requests=300, **options)
            for _ in range(args.rounds):
                for name in SERVERS:
                    runs[name].append(measure(servers[name], requests=args.requests, **options))
            for name in SERVERS:
                cpu = [used / result.requests * 1e6 for result, used in runs[name]]
                row = {
                    "requests_per_s": round(statistics.median(r.rate for r, _ in runs[name]), 1),
                    "requests_per_s_per_core": round(1e6 / statistics.median(cpu), 1),
                    "server_cpu_us_per_request": round(statistics.median(cpu), 1),
                    "server_cpu_us_per_event": round(statistics.median(cpu) / EVENTS, 2) if stream else None,
                    "latency_p50_ms": statistics.median(r.summary()["latency_p50_ms"] for r, _ in runs[name]),
                    "ttft_p50_ms": statistics.median(r.summary()["ttft_p50_ms"] for r, _ in runs[name]),
                    "client_cpu_share": statistics.median(r.summary()["client_cpu_share"] for r, _ in runs[name]),
                }
                table[f"{mode}/{name}"] = row
                print(f"{mode:7s} {name:9s} {json.dumps(row)}", flush=True)
            pairs = zip(runs["by_hand"], runs["trunnion"], strict=True)
            ratios = sorted((a[1] / a[0].requests) / (b[1] / b[0].requests) for a, b in pairs)
            table[f"{mode}/ratio"] = {"cpu_by_hand_over_trunnion": [round(r, 3) for r in ratios]}
            print(f"{mode:7s} requests/s per core, trunnion / by hand: median {statistics.median(ratios):.3f}")
    finally:
        for server in servers.values():
            server.stop()
    for mode in ("plain", "stream"):
        for name in SERVERS[1:]:
            table[f"{mode}/{name}/profile"] = profiled(
                name, stream=mode == "stream", requests=args.requests, connections=args.connections
            )
    command = f"PYTHONPATH=core:plugins:adapters:benches python benches/http_ceiling.py --rounds {args.rounds}"
    (RESULTS / "http_ceiling.json").write_text(json.dumps(table, indent=1) + "\n")
    (RESULTS / "http_ceiling.md").write_text(markdown(table, command))
    print(markdown(table, command))


if __name__ == "__main__":
    main()
