"""Keep a server busy with everything clients do, and look whether anything of it stays behind.

64 clients ask at random: whole and streamed answers of three APIs, adapters (fifty through four slots), embeddings,
bad bodies, unknown models, and they hang up: before the answer, in the middle, at once. An administrator loads and
unloads adapters all the while. Every request must be answered as it should be, or be given up by its client. Memory,
descriptors, threads and tasks of the server are read every few seconds, and once more when all clients are gone.
With ``--gateway`` the server is Ray Serve's, with a second model, and the replicas behind the gateway are watched too.

    PYTHONPATH=benches python benches/soak.py --engine sim [--gateway] [--minutes 10] [--clients 64] [--name soak-sim]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from processes import ENGINE_ENVIRONMENT, free_port

RESULTS = Path(__file__).parent / "results"
ADAPTERS = 50
ADMIN = {"x-api-key": "soak"}
FIGURES = {"tasks": "trunnion_event_loop_tasks", "fds": "process_open_fds", "in_flight": "trunnion_requests_in_flight"}
BEHIND = {**FIGURES, "rss": "process_resident_memory_bytes"}
SERVE = [sys.executable, "-c", "from trunnion_cli.main import run; run()", "serve"]
SETTINGS: dict[str, dict[str, Any]] = {
    "sim": {"ttft": 0.01, "tpot": 0.005, "max_num_seqs": 32},
    "vllm": {"enforce_eager": True, "max_model_len": 512},
}


def command(engine: str, folder: Path, port: int, *, gateway: bool) -> list[str]:
    """Return the command that serves the engine."""
    model: str | None = None
    if engine != "sim":
        from trunnion_demo import model_path

        model = str(model_path())
    if gateway:
        config = gateway_config(engine, model, folder, port)
        (folder / "app.yaml").write_text(json.dumps(config))  # which is YAML
        return [*SERVE, str(folder / "app.yaml")]
    made = [*SERVE, *filter(None, [model]), "--engine", engine, "--port", str(port), "--name", "m"]
    made += ["--adapter-folder", str(folder / "adapters"), "--max-loras", "4"]
    made += ["--admin-keys-file", str(folder / "keys")]
    return [*made, *(part for name, value in SETTINGS[engine].items() for part in ("--set", f"{name}={value}"))]


def gateway_config(engine: str, model: str | None, folder: Path, port: int) -> dict[str, Any]:
    """Return Ray Serve's config of the engine, beside another model."""
    lora = {"folders": [str(folder / "adapters")], "max_loras": 4}
    first = {"name": "m", "engine": engine, "model": model, "config": SETTINGS[engine], "lora": lora}
    models = [first, {"name": "other", "engine": "sim", "config": SETTINGS["sim"]}]
    args = {"models": models, "http": {"admin_keys_file": str(folder / "keys")}}
    app = {"name": "soak", "route_prefix": "/", "import_path": "trunnion_ray.serve:build_openai_app", "args": args}
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [app]}


def make_folder(engine: str, folder: Path) -> None:
    """Lay out fifty adapters and the administrator's key."""
    (folder / "keys").write_text(ADMIN["x-api-key"])
    kinds: list[Path] = []
    if engine != "sim":
        from trunnion_demo import adapter_paths

        kinds = [Path(path) for path in adapter_paths().values()]
    for number in range(ADAPTERS):
        target = folder / "adapters" / f"a{number}"
        if kinds:
            shutil.copytree(kinds[number % len(kinds)], target)
        else:
            target.mkdir(parents=True)
            (target / "adapter_config.json").write_text("{}")


class Soak:
    """Be the clients."""

    def __init__(self, url: str, *, clients: int, embeds: bool, other: bool, seed: int) -> None:
        self._web = httpx.AsyncClient(
            base_url=url, timeout=120, limits=httpx.Limits(max_connections=None, max_keepalive_connections=clients)
        )
        self._clients = clients
        self._random = random.Random(seed)
        self._embeds = embeds
        self._other = other
        self._end = 0.0
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self, seconds: float) -> None:
        """Ask for so long; returns when every request has ended."""
        self._end = time.monotonic() + seconds
        await asyncio.gather(self._administrator(), *(self._client() for _ in range(self._clients)))

    async def close(self) -> None:
        """Close the connections."""
        await self._web.aclose()

    async def _client(self) -> None:
        kinds: list[tuple[float, Callable[[], Awaitable[str]]]] = [
            (4, self._chat), (4, self._stream), (3, self._adapter), (2, self._leave_stream), (2, self._leave_whole),
            (1, self._leave_at_once), (1, self._messages), (1, self._responses), (2, self._bad), (1, self._small),
            (1 if self._embeds else 0, self._embed), (2 if self._other else 0, self._ask_other),
        ]  # fmt: skip
        weights = [weight for weight, _ in kinds]
        while time.monotonic() < self._end:
            _, ask = self._random.choices(kinds, weights)[0]
            try:
                self.ended[await ask()] += 1
            except Exception as error:
                self.wrong.append(f"{ask.__name__}: {type(error).__name__}: {error}"[:300])

    def _body(self, **more: Any) -> dict[str, Any]:
        text = "What is the capital of " + self._random.choice(["France", "Italy", "Japan", "Peru"]) + "?"
        tokens = self._random.randint(1, 48)
        return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, **more}

    def _any_adapter(self) -> str:
        return f"a{self._random.randrange(ADAPTERS)}"

    async def _expect(self, answer: httpx.Response, kind: str, *statuses: int) -> str:
        if answer.status_code not in statuses:
            self.wrong.append(f"{kind}: {answer.status_code}: {answer.text[:200]}")
        return f"{kind} {answer.status_code}"

    async def _chat(self) -> str:
        return await self._expect(await self._web.post("/v1/chat/completions", json=self._body()), "chat", 200)

    async def _adapter(self) -> str:
        body = self._body(model=self._any_adapter())
        return await self._expect(await self._web.post("/v1/chat/completions", json=body), "adapter", 200)

    async def _stream(self) -> str:
        async with self._web.stream("POST", "/v1/chat/completions", json=self._body(stream=True)) as answer:
            text = (await answer.aread()).decode()
        if not text.endswith("data: [DONE]\n\n"):
            self.wrong.append(f"stream ended with {text[-200:]!r}")
        return f"stream {answer.status_code}"

    async def _ask_other(self) -> str:
        body = self._body(model="other", stream=self._random.random() < 0.5)
        return await self._expect(await self._web.post("/v1/chat/completions", json=body), "other", 200)

    async def _leave_stream(self) -> str:
        body = self._body(stream=True, max_tokens=400, model=self._random.choice(["m", self._any_adapter()]))
        async with self._web.stream("POST", "/v1/chat/completions", json=body) as answer:
            pieces = answer.aiter_raw()
            for _ in range(self._random.randint(1, 5)):
                await anext(pieces, None)
        return "left in mid-stream"

    async def _leave_whole(self) -> str:
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(self._random.uniform(0.005, 0.5)):
                await self._web.post("/v1/chat/completions", json=self._body(max_tokens=400))
                return "answered before it left"
        return "left while it waited"

    async def _leave_at_once(self) -> str:
        reader, writer = await asyncio.open_connection(self._web.base_url.host, self._web.base_url.port)
        sent = json.dumps(self._body(stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(sent)}\r\n\r\n".encode()
        writer.write((head + sent)[: self._random.randint(1, len(head) + len(sent))])
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()
        del reader
        return "left at once"

    async def _messages(self) -> str:
        return await self._expect(await self._web.post("/v1/messages", json=self._body()), "messages", 200)

    async def _responses(self) -> str:
        body = {"model": "m", "input": "Hello", "max_output_tokens": 16}
        return await self._expect(await self._web.post("/v1/responses", json=body), "responses", 200)

    async def _embed(self) -> str:
        return await self._expect(
            await self._web.post("/v1/embeddings", json={"model": "m", "input": "x"}), "embed", 200
        )

    async def _bad(self) -> str:
        path = "/v1/chat/completions"
        bad: list[tuple[Any, tuple[int, ...]]] = [
            (b"{", (400,)),
            (b'{"messages": NaN}', (400,)),
            (json.dumps(self._body(model="nobody")).encode(), (404,)),
            (json.dumps(self._body(temperature=-1)).encode(), (400,)),
            (json.dumps(self._body(max_tokens=10**9)).encode(), (400,)),
            (json.dumps(self._body(nonsense=1)).encode(), (400,)),
        ]
        content, statuses = self._random.choice(bad)
        return await self._expect(await self._web.post(path, content=content), "bad", *statuses)

    async def _small(self) -> str:
        path = self._random.choice(["/health", "/ready", "/v1/models", "/metrics", "/openapi.json", "/version"])
        return await self._expect(await self._web.get(path), "get", 200)

    async def _administrator(self) -> None:
        number = 0
        while time.monotonic() < self._end:
            number += 1
            name = f"hot{number}"
            body = {"lora_name": name, "lora_path": self._any_adapter(), **({"model": "m"} if self._other else {})}
            try:
                made = await self._web.post("/v1/load_lora_adapter", json=body, headers=ADMIN)
                self.ended[await self._expect(made, "load", 200)] += 1
                gone = await self._web.post("/v1/unload_lora_adapter", json={"lora_name": name}, headers=ADMIN)
                self.ended[await self._expect(gone, "unload", 200)] += 1
            except httpx.HTTPError as error:
                self.wrong.append(f"administrator: {type(error).__name__}: {error}"[:300])
            await asyncio.sleep(0.2)


async def figures(web: httpx.AsyncClient, process: psutil.Process) -> dict[str, float]:
    """Return what the server holds now; memory in MiB, of the serving process and of all it started."""
    text = (await web.get("/metrics")).text
    found = {name: re.search(rf"^{metric} ([0-9.e+]+)$", text, re.MULTILINE) for name, metric in FIGURES.items()}
    values = {name: float(match[1]) for name, match in found.items() if match is not None}
    children = process.children(recursive=True)
    values["rss_mib"] = process.memory_info().rss / 2**20
    values["all_rss_mib"] = values["rss_mib"] + sum(child.memory_info().rss for child in children) / 2**20
    values["threads"] = process.num_threads()
    values["engine"] = told(text, "trunnion_engine_running") + told(text, "trunnion_engine_waiting")
    values |= {f"{name}_behind": told(text, metric) for name, metric in BEHIND.items()}
    values["rss_mib_behind"] = values.pop("rss_behind") / 2**20
    return values


def told(text: str, metric: str) -> float:
    """Return the sum over all that tell a metric with labels."""
    return sum(map(float, re.findall(rf"^{metric}{{.*}} ([0-9.e+]+)$", text, re.MULTILINE)))


@asynccontextmanager
async def serving(engine: str, *, gateway: bool) -> AsyncIterator[tuple[str, psutil.Process]]:
    """Start the server, and end it."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        make_folder(engine, Path(folder))
        environment = {**os.environ, **ENGINE_ENVIRONMENT}
        log = Path(folder, "log").open("wb")  # noqa: SIM115 - closed below
        process = subprocess.Popen(
            command(engine, Path(folder), port, gateway=gateway), env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=url) as web:
                for _ in range(1800):
                    with suppress(httpx.HTTPError):
                        if (await web.get("/ready")).status_code == 200:
                            break
                    if process.poll() is not None:
                        raise RuntimeError(Path(folder, "log").read_text()[-2000:])
                    await asyncio.sleep(0.1)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            log.close()


async def soak(
    engine: str, *, minutes: float, clients: int, gateway: bool = False, every: float = 5.0
) -> dict[str, Any]:
    """Run it all; return the figures: at rest before and after, and during the load."""
    kinds = {"clients": clients, "embeds": engine == "sim", "other": gateway}
    async with serving(engine, gateway=gateway) as (url, process), httpx.AsyncClient(base_url=url, timeout=60) as web:
        warming = Soak(url, **kinds, seed=1)
        await warming.run(min(60.0, minutes * 60 / 5))
        await warming.close()
        before = await at_rest(web, process)
        clients_ = Soak(url, **kinds, seed=2)
        samples: list[dict[str, float]] = []

        async def sample() -> None:
            while True:
                await asyncio.sleep(every)
                samples.append(await figures(web, process))

        sampling = asyncio.create_task(sample())
        began = time.monotonic()
        await clients_.run(minutes * 60)
        seconds = time.monotonic() - began
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
        await clients_.close()
        after = await at_rest(web, process)
    quarter = max(1, len(samples) // 4)
    busy = {
        name: [statistics.median(one[name] for one in part) for part in (samples[:quarter], samples[-quarter:])]
        for name in samples[0]
    }
    return {
        "engine": engine,
        "gateway": gateway,
        "minutes": minutes,
        "clients": clients,
        "seconds": round(seconds, 1),
        "ended": dict(sorted(clients_.ended.items())),
        "requests": sum(clients_.ended.values()),
        "wrong": clients_.wrong[:20],
        "wrong_count": len(clients_.wrong),
        "at_rest_before": before,
        "at_rest_after": after,
        "busy_first_and_last_quarter": busy,
    }


async def at_rest(web: httpx.AsyncClient, process: psutil.Process) -> dict[str, float]:
    """Return the figures once nothing is in flight any more: this request itself is the one that is counted."""
    for _ in range(200):
        now = await figures(web, process)
        if now["in_flight"] <= 1 and not now["engine"]:
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(2.0)
    return await figures(web, process)


def main() -> None:
    """Soak, print, and write benches/results/<name>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["sim", "vllm"], default="sim")
    parser.add_argument("--gateway", action="store_true", help="on Ray Serve, before two models")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--name", help="of the result file; soak-ENGINE, with -gateway, if left out")
    arguments = parser.parse_args()
    engine, gateway = arguments.engine, arguments.gateway
    made = asyncio.run(soak(engine, minutes=arguments.minutes, clients=arguments.clients, gateway=gateway))
    flags = f"--engine {engine}{' --gateway' if gateway else ''} --minutes {arguments.minutes:g}"
    made["command"] = f"PYTHONPATH=benches python benches/soak.py {flags}"
    made["cpus"] = os.cpu_count()
    text = json.dumps(made, indent=1) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    name = arguments.name or f"soak-{engine}{'-gateway' if gateway else ''}"
    (RESULTS / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
