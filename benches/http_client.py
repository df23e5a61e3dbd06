"""Load an OpenAI-compatible server from one process, cheaply: raw asyncio, keep-alive connections, no HTTP library.

The client is meant to cost so little that the server is what is measured; its own CPU time is reported beside. It
parses just what it needs: the status, the end of the response, and where server-sent events begin.

    python benches/http_client.py --port 8000 --path /v1/completions --body body.json --connections 32 --requests 2000

As a module: ``asyncio.run(run_load(...))`` returns a :class:`LoadResult`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

_END_OF_CHUNKS = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class LoadResult:
    """Hold what a run measured; times in seconds."""

    requests: int = 0
    errors: int = 0
    events: int = 0
    bytes: int = 0
    wall: float = 0.0
    client_cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    ttfts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """Between one arrival of a stream's events and the next: what a reader waits for."""
    samples: list[bytes] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Return answered requests per second."""
        return self.requests / self.wall if self.wall else 0.0

    def summary(self) -> dict[str, float]:
        """Return the figures for a table or a JSON file; milliseconds for single requests."""

        def ms(values: list[float], q: float) -> float:
            ordered = sorted(values)
            return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000, 3) if ordered else 0.0

        return {
            "requests": self.requests,
            "errors": self.errors,
            "events": self.events,
            "wall_s": round(self.wall, 3),
            "requests_per_s": round(self.rate, 1),
            "latency_p50_ms": ms(self.latencies, 0.5),
            "latency_p99_ms": ms(self.latencies, 0.99),
            "latency_mean_ms": round(statistics.fmean(self.latencies) * 1000, 3) if self.latencies else 0.0,
            "ttft_p50_ms": ms(self.ttfts, 0.5),
            "ttft_p99_ms": ms(self.ttfts, 0.99),
            "itl_p50_ms": ms(self.gaps, 0.5),
            "itl_p90_ms": ms(self.gaps, 0.9),
            "itl_p99_ms": ms(self.gaps, 0.99),
            "client_cpu_s": round(self.client_cpu, 3),
            "client_cpu_share": round(self.client_cpu / self.wall, 3) if self.wall else 0.0,
        }


class _Load:
    """Hand out requests to the connections and gather what they saw."""

    def __init__(self, payload: Callable[[int], bytes], total: int | None, until: float | None, keep: int) -> None:
        self.payload = payload
        self.total = total
        self.until = until
        self.keep = keep
        self.sent = 0
        self.result = LoadResult()
        self.open = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def next(self) -> bytes | None:
        if (self.total is not None and self.sent >= self.total) or (
            self.until is not None and time.perf_counter() >= self.until
        ):
            return None
        self.sent += 1
        return self.payload(self.sent - 1)


class _Connection(asyncio.Protocol):
    """Send a request, wait for the end of its response, send the next."""

    def __init__(self, load: _Load) -> None:
        self.load = load

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.load.open += 1
        self.busy = False
        self._send()

    def _send(self) -> None:
        data = self.load.next()
        if data is None:
            self.busy = False
            self.transport.close()
            return
        self.busy = True
        self.head = b""
        self.in_body = False
        self.left = -1  # -1: chunked
        self.tail = b""
        self.first = self.last = 0.0
        self.status = 0
        self.body: list[bytes] = []
        self.began = time.perf_counter()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        load = self.load
        if not self.in_body:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self.head[:end].lower(), self.head[end + 2 :]  # keep one CRLF before an empty chunk
            self.in_body = True
            self.status = int(head[9:12])
            at = head.find(b"content-length:")
            if at >= 0:
                self.left = int(head[at + 15 :].split(b"\r\n", 1)[0])
                data = data[2:]
        if not data:
            return
        self._count(data)
        if len(load.result.samples) < load.keep:
            self.body.append(data)
        if self.left >= 0:
            self.left -= len(data)
            if self.left <= 0:
                self._finish()
        elif data.endswith(_END_OF_CHUNKS):
            self._finish()
        else:
            self.tail = (self.tail + data)[-len(_END_OF_CHUNKS) :]
            if self.tail == _END_OF_CHUNKS:
                self._finish()

    def _count(self, data: bytes) -> None:
        result = self.load.result
        result.bytes += len(data)
        events = data.count(b"data: ")
        result.events += events
        if len(data) > 2 and (events or not self.first):
            now = time.perf_counter()
            if self.first:
                result.gaps.append(now - self.last)
            else:
                self.first = now
            self.last = now

    def _finish(self) -> None:
        now = time.perf_counter()
        result = self.load.result
        result.requests += 1
        result.latencies.append(now - self.began)
        result.ttfts.append((self.first or now) - self.began)
        if self.status != 200:
            result.errors += 1
        if self.body and len(result.samples) < self.load.keep:
            result.samples.append(b"".join(self.body))
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        load = self.load
        load.open -= 1
        if self.busy:
            load.result.errors += 1
        if load.open == 0 and not load.done.done():
            load.done.set_result(None)


def http_request(path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return a POST with a JSON body, ready to be written to a socket."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def run_load(
    payload: Callable[[int], bytes],
    *,
    host: str = "127.0.0.1",
    port: int,
    connections: int = 32,
    requests: int | None = None,
    seconds: float | None = None,
    keep: int = 0,
) -> LoadResult:
    """Send requests over keep-alive connections, each with one request in flight.

    Args:
        payload: Returns the bytes of request ``i``; see :func:`http_request`.
        host: Where the server listens.
        port: Its port.
        connections: How many connections.
        requests: Stop after so many; at least one of this and ``seconds`` is needed.
        seconds: Stop sending after so long.
        keep: How many whole responses to keep in ``samples``, to check them.
    """
    if requests is None and seconds is None:
        msg = "say how many requests, or for how many seconds"
        raise ValueError(msg)
    loop = asyncio.get_running_loop()
    cpu, began = time.process_time(), time.perf_counter()
    load = _Load(payload, requests, None if seconds is None else began + seconds, keep)
    load.open = 1  # held until all connections are made
    await asyncio.gather(*[loop.create_connection(lambda: _Connection(load), host, port) for _ in range(connections)])
    load.open -= 1
    if load.open:
        await load.done
    load.result.wall = time.perf_counter() - began
    load.result.client_cpu = time.process_time() - cpu
    return load.result


def main() -> None:
    parser = argparse.ArgumentParser(description="Load an OpenAI-compatible server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/completions")
    parser.add_argument("--body", required=True, help="a file with the JSON body, or the JSON itself")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--header", action="append", default=[], help="NAME=VALUE")
    parser.add_argument("--raw", type=Path, help="write every latency and TTFT here, as JSON")
    args = parser.parse_args()
    body = args.body.encode() if args.body.lstrip().startswith("{") else Path(args.body).read_bytes()
    data = http_request(args.path, body, [tuple(h.split("=", 1)) for h in args.header])
    import uvloop

    result = uvloop.run(
        run_load(
            lambda _: data,
            host=args.host,
            port=args.port,
            connections=args.connections,
            requests=args.requests,
            seconds=args.seconds,
        )
    )
    if args.raw is not None:
        args.raw.write_text(json.dumps({k: v for k, v in asdict(result).items() if k != "samples"}))
    print(json.dumps(result.summary()))


if __name__ == "__main__":
    main()
