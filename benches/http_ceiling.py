"""Measure what the HTTP surface costs, against the same work done by hand in forty lines of raw ASGI.

No engine: a model that yields ready-made events, giving way to the loop before each as a real one does. Each server
runs in a process of its own, the client in this one, and they take turns (A B A B ...). The figures that matter are
the server's own CPU time per request and per streamed event; requests/s depends on where the client runs.

    python benches/http_ceiling.py [--rounds 7] [--requests 3000] [--profile]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop

from http_client import LoadResult, http_request, run_load
from trunnion.engine import EngineInfo
from trunnion.events import ChoiceDelta, GenerateEvent, Usage
from trunnion_http import create_app, make_server

EVENTS = 16
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


def _server(which: str) -> uvicorn.Server:
    if which == "trunnion":
        return make_server(create_app([Model()]), port=0)
    options: dict[str, Any] = {"loop": "uvloop", "http": "httptools", "ws": "none", "log_config": None}
    options |= {"access_log": False, "proxy_headers": False, "server_header": False, "lifespan": "on"}
    return uvicorn.Server(uvicorn.Config(by_hand, port=0, **options))


def _run_server(which: str, pipe: Any, profile: bool) -> None:  # noqa: FBT001 - crosses to the process by position
    """Serve, and answer every message on the pipe with the CPU time used so far."""
    server = _server(which)
    loop_ready = False

    async def main() -> None:
        nonlocal loop_ready
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()

        def asked() -> None:
            if pipe.recv() == "stop":
                loop.remove_reader(pipe.fileno())
                server.should_exit = True
            else:
                pipe.send(time.process_time())

        loop.add_reader(pipe.fileno(), asked)
        await task

    if profile:
        import cProfile
        import pstats

        profiler = cProfile.Profile()
        profiler.runcall(uvloop.run, main())
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
    else:
        uvloop.run(main())


class Served:
    """One server process."""

    def __init__(self, which: str, *, profile: bool = False) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--profile", action="store_true", help="profile our server instead of comparing")
    parser.add_argument("--json", help="write the figures here")
    args = parser.parse_args()
    names = ["trunnion"] if args.profile else ["by_hand", "trunnion"]
    servers = {name: Served(name, profile=args.profile) for name in names}
    table: dict[str, Any] = {"cpus": os.cpu_count(), "events_per_request": EVENTS, "connections": args.connections}
    try:
        for stream in (False, True):
            mode = "stream" if stream else "plain"
            runs: dict[str, list[tuple[LoadResult, float]]] = {name: [] for name in names}
            options = {"stream": stream, "connections": args.connections}
            for name in names:
                measure(servers[name], requests=300, **options)
            for _ in range(args.rounds):
                for name in names:
                    runs[name].append(measure(servers[name], requests=args.requests, **options))
            for name in names:
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
            if len(names) == 2:
                pairs = zip(runs["by_hand"], runs["trunnion"], strict=True)
                ratios = sorted((a[1] / a[0].requests) / (b[1] / b[0].requests) for a, b in pairs)
                table[f"{mode}/ratio"] = {"cpu_by_hand_over_trunnion": [round(r, 3) for r in ratios]}
                print(f"{mode:7s} requests/s per core, trunnion / by hand: median {statistics.median(ratios):.3f}")
    finally:
        for server in servers.values():
            server.stop()
    table["load_average"] = [round(x, 1) for x in os.getloadavg()]  # others at work on the machine show here
    if args.json:
        with Path(args.json).open("w") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
