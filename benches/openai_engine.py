"""Measure the CPU time of one streamed event: our engine for endpoints against bare httpx, on the same stream.

A fast server in a process of its own sends every event on its own, paced as an engine's steps are, so that each costs
a wake-up and a read on the client's side as well. The sides take turns (A B A B ...) in one client process, whose CPU
time is what is measured:

- *httpx*: ``client.stream``, ``aiter_lines``, ``json.loads``, the text of the delta: what a careful person writes
- *bytes*: the same with ``aiter_raw``, a split and msgspec: the least that a client over httpx can do
- *engine*: :class:`trunnion_openai.engine.OpenAIEngine`, events of the core
- *pipeline*: the engine behind a :class:`trunnion.Pipeline`
- *openai*: the openai package's own stream of pydantic objects, for comparison

    python benches/openai_engine.py [--rounds 9] [--connections 64] [--events 200] [--json benches/results/NAME.json]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import openai
import uvloop

import trunnion
from stats import paired_ratio
from trunnion import GenerateRequest, MessagesPrompt
from trunnion_openai.config import OpenAIConfig
from trunnion_openai.engine import OpenAIEngine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
HTTP = importlib.import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
MESSAGES = ({"role": "user", "content": "About the sea."},)
BODY = {"model": "m", "messages": list(MESSAGES), "stream": True, "stream_options": {"include_usage": True}}


def chunked(body: bytes) -> bytes:
    data = b"data: " + body + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame(**choice: Any) -> bytes:
    start = {"id": "chatcmpl-1f2e3d4c5b6a", "object": "chat.completion.chunk", "created": 1760000000, "model": "m"}
    choices = [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, **choice}]
    return chunked(msgspec.json.encode({**start, "choices": choices, "usage": None}))


class SSE(asyncio.Protocol):
    """Stream ``events`` deltas at the pace, whatever is asked."""

    events = 0
    pace = 0.0
    texts: tuple[bytes, ...] = ()
    last = b""

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
        self.transport.write(HEAD)
        self.step(0)

    def step(self, number: int) -> None:
        if self.transport.is_closing():
            return
        if number == self.events:
            self.transport.write(self.last)
            return
        self.transport.write(self.texts[number % len(self.texts)])
        asyncio.get_running_loop().call_later(self.pace, self.step, number + 1)


def serve(pipe: Any, events: int, pace: float) -> None:
    async def main() -> None:
        SSE.events, SSE.pace = events, pace
        SSE.texts = tuple(frame(delta={"content": f" token{i}"}) for i in range(16))
        usage = {"prompt_tokens": 12, "completion_tokens": events, "total_tokens": 12 + events}
        SSE.last = frame(finish_reason="length") + chunked(msgspec.json.encode({"choices": [], "usage": usage}))
        SSE.last += chunked(b"[DONE]") + b"0\r\n\r\n"
        server = await asyncio.get_running_loop().create_server(SSE, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    uvloop.run(main())


def clients(url: str, connections: int) -> dict[str, Any]:
    limits = HTTP.Limits(max_connections=connections, max_keepalive_connections=connections)
    http = HTTP.AsyncClient(limits=limits, timeout=HTTP.Timeout(60, pool=None))
    lists = msgspec.json.Decoder()

    async def by_lines() -> int:
        count = 0
        async with http.stream("POST", f"{url}/chat/completions", json=BODY) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    count += 1
        return count

    async def by_bytes() -> int:
        count, rest = 0, b""
        async with http.stream("POST", f"{url}/chat/completions", json=BODY) as response:
            response.raise_for_status()
            async for chunk in response.aiter_raw():
                *events, rest = (rest + chunk).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]":
                        choices = lists.decode(event[6:])["choices"]
                        if choices and choices[0]["delta"].get("content"):
                            count += 1
        return count

    package = openai.AsyncOpenAI(base_url=url, api_key="none", http_client=http, max_retries=0)

    async def by_openai() -> int:
        count = 0
        async for chunk in await package.chat.completions.create(**BODY):  # type: ignore[call-overload]
            if chunk.choices and chunk.choices[0].delta.content:
                count += 1
        return count

    async def consume(generate: Callable[[GenerateRequest], Any]) -> int:
        count = 0
        async with aclosing(generate(GenerateRequest(prompt=MessagesPrompt(messages=MESSAGES)))) as events:
            async for event in events:
                for choice in event.choices:
                    if choice.text:
                        count += 1
        return count

    return {"httpx": by_lines, "bytes": by_bytes, "openai": by_openai, "consume": consume, "http": http}


async def measure(one: Callable[[], Awaitable[int]], connections: int, events: int) -> float:
    """Return the microseconds of CPU per event."""
    before = time.process_time()
    counts = await asyncio.gather(*(one() for _ in range(connections)))
    used = time.process_time() - before
    assert counts == [events] * connections, counts
    return used / (events * connections) * 1e6


async def run(args: argparse.Namespace, port: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/v1"
    made = clients(url, args.connections)
    config = {"base_url": url, "check_endpoint": False, "max_concurrency": args.connections}
    engine = OpenAIEngine("m", OpenAIConfig(**config))
    await engine.start()
    figures: dict[str, list[float]] = {}
    async with trunnion.open_pipeline(trunnion.engine_spec("openai", "m", config)) as pipeline:
        sides: dict[str, Callable[[], Awaitable[int]]] = {
            "httpx": made["httpx"],
            "bytes": made["bytes"],
            "engine": lambda: made["consume"](engine.generate),
            "pipeline": lambda: made["consume"](pipeline.generate),
            "openai": made["openai"],
        }
        for name, side in sides.items():
            await measure(side, args.connections, args.events)  # connections are made, code is warm
            figures[name] = []
        for _ in range(args.rounds):
            for name, side in sides.items():
                figures[name].append(await measure(side, args.connections, args.events))
    await engine.stop()
    await made["http"].aclose()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--connections", type=int, default=64, help="streams side by side")
    parser.add_argument("--events", type=int, default=200, help="events per stream")
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between two events of a stream")
    parser.add_argument("--uvloop", action="store_true", help="run the client on uvloop, as batches do")
    parser.add_argument("--json", help="write the figures here")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, args.events, args.pace), daemon=True)
    server.start()
    port = pipe.recv()
    try:
        figures = (uvloop.run if args.uvloop else asyncio.run)(run(args, port))
    finally:
        pipe.send("stop")
        server.join(10)
    table: dict[str, Any] = {"cpus": os.cpu_count(), "openai": openai.__version__, **vars(args)}
    for name, values in figures.items():
        ratio = paired_ratio(values, figures["httpx"])
        least = paired_ratio(values, figures["bytes"])
        table[name] = {
            "cpu_us_per_event": round(statistics.median(values), 2),
            "to_httpx": str(ratio),
            "to_bytes": str(least),
            "all": [round(value, 2) for value in values],
        }
        print(f"{name:9s} {statistics.median(values):7.2f} us/event   to httpx {ratio}   to bytes {least}", flush=True)
    table["load_average"] = [round(x, 1) for x in os.getloadavg()]
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
