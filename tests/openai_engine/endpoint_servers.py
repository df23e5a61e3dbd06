"""Servers that tests script byte by byte, and engines that speak to them."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

from trunnion import GenerateRequest, MessagesPrompt, SamplingParams
from trunnion_openai.config import OpenAIConfig
from trunnion_openai.engine import OpenAIEngine

QUICK = {"check_endpoint": False, "max_retries": 0, "retry_backoff": 0.001, "keepalive": 30.0}


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict
    body: object
    connection: int


@dataclass
class ScriptedServer:
    """Answer requests with what ``script(asked, writer)`` writes; count connections, requests and hang-ups."""

    script: object
    asked: list = field(default_factory=list)
    connections: int = 0
    open: int = 0
    peak: int = 0
    running: int = 0
    hung_up: int = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.tasks = set()
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while True:
                asked = await self._read(reader, number)
                if asked is None:
                    return
                self.asked.append(asked)
                self.running += 1
                self.peak = max(self.peak, self.running)
                try:
                    await self._watched(asked, reader, writer)
                finally:
                    self.running -= 1
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _watched(self, asked, reader, writer):
        """Run the script, and give it up when the client hangs up."""
        script = asyncio.ensure_future(self.script(asked, writer))
        gone = asyncio.ensure_future(self._gone(reader))
        try:
            await asyncio.wait({script, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not script.done():
                self.hung_up += 1
                writer.close()
                return
            try:
                await script
            except ConnectionError:
                self.hung_up += 1
                raise
        finally:
            for task in (script, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task

    @staticmethod
    async def _gone(reader):
        while not reader.at_eof():
            await asyncio.sleep(0.05)

    async def _read(self, reader, number):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        pairs = [line.split(": ", 1) for line in lines if ": " in line]
        headers = {name.lower(): value for name, value in pairs}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        form = headers.get("content-type", "").startswith("multipart/")
        return Asked(method, path, headers, raw if form else json.loads(raw) if raw else None, number)


def answer(status, body, *headers, kind="application/json"):
    """Return a script that answers every request the same way."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(_, writer):
        writer.write(http(status, data, *headers, kind=kind))
        await writer.drain()

    return script


def http(status, data, *headers, kind="application/json"):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", f"Content-Type: {kind}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def streamed(*pieces, end=True, delay=0.0):
    """Return a script that streams the pieces, one HTTP chunk each."""

    async def script(_, writer):
        writer.write(STREAM_HEAD)
        for piece in pieces:
            writer.write(chunked(piece))
            await writer.drain()
            await asyncio.sleep(delay)
        if end:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        else:
            writer.close()

    return script


def sse(value):
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def delta(content=None, index=0, finish=None, **further):
    """Return a chat event with one choice."""
    message = {**({} if content is None else {"content": content}), **further}
    return sse({"choices": [{"index": index, "delta": message, "finish_reason": finish}]})


USAGE = sse({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
DONE = sse(b"[DONE]")
HELLO = (delta("", role="assistant"), delta("Hel"), delta("lo"), delta(finish="stop"), USAGE, DONE)
WHOLE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}


def ask(text="Hi", *, final=False, **fields):
    sampling = fields.pop("sampling", {})
    return GenerateRequest(
        prompt=fields.pop("prompt", None) or MessagesPrompt(messages=({"role": "user", "content": text},)),
        sampling=SamplingParams(**sampling),
        delivery="final" if final else "delta",
        **fields,
    )


@contextlib.asynccontextmanager
async def engine_at(*urls, model="m", **config):
    engine = OpenAIEngine(model, OpenAIConfig(base_url=urls if len(urls) > 1 else urls[0], **{**QUICK, **config}))
    try:
        engine.info = await engine.start()
        yield engine
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def scripted(script, **config):
    """Yield a server with this script and an engine that speaks to it."""
    async with ScriptedServer(script) as server, engine_at(server.url, **config) as engine:
        yield server, engine
