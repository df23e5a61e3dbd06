"""Measure serving through Ray Serve against vLLM's own API server: requests/s, TTFT, memory, start-up.

    python benches/serving.py --pairs 7
    python benches/serving.py --peers ray-default ray-direct --name peers

All servers run the same model with the same engine settings and environment; they are measured in turn
(A B A B ...), those that are not measured stopped with SIGSTOP. Greedy answers are compared first: a speed without
the same text means nothing. ``--peers`` adds ``ray.serve.llm``, as it comes and on its direct path.
Writes benches/results/serving-<name>.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import uvloop

from http_client import LoadResult, http_request, run_load
from processes import Server, free_port
from stats import paired_ratio
from trunnion_demo import PROMPTS, adapter_paths, model_path

RESULTS = Path(__file__).parent / "results"
FIGURES = (
    "requests_per_s",
    "ttft_p50_ms",
    "ttft_p99_ms",
    "itl_p90_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "server_cpu_s",
)
PEERS = {
    "ray-default": {},
    "ray-direct": {
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": "9102",  # both servers' HAProxy run at once
        "RAY_SERVE_HAPROXY_STATS_PORT": "8405",
    },
}
"""Ray's own module, by the environment that chooses its path."""
_WORTH = 0.05
"""Seconds of CPU of a process that are worth telling."""
VARIANTS = {
    "guarded": ["--guarded"],
    "adapter": ["--adapter"],
    "gateway": ["--topology", "gateway"],
    "proxy": ["--topology", "proxy"],
}
"""Further ways to serve with Trunnion."""
VLLM_ADAPTER = "vllm-adapter"
"""vLLM's own server with the adapter: what ``adapter`` is compared with where both run."""
ADAPTED = ("adapter", VLLM_ADAPTER)
BARE = "bare"
"""vLLM's AsyncLLM in one process, asked for the same without any server."""
KEY = "bench"
QUESTIONS = [prompt.messages for prompt in PROMPTS if not prompt.tools]


def payload(index: int, *, stream: bool, tokens: int, server: str = "") -> bytes:
    """Return request ``index``: one of the demo prompts with ``tokens`` forced tokens.

    No end token among them: it has no text, and what has none is told by some servers and not by others.
    """
    body = {
        "model": next(iter(adapter_paths())) if server in ADAPTED else "demo",
        "messages": QUESTIONS[index % len(QUESTIONS)],
        "max_tokens": tokens,
        "ignore_eos": True,
        "min_tokens": tokens,
        "temperature": 0.0,
        "stream": stream,
    }
    return http_request("/v1/chat/completions", json.dumps(body).encode(), [("x-api-key", KEY)])


def measure(server: Server, args: argparse.Namespace, *, stream: bool) -> LoadResult:
    if server.name == BARE:
        load = {"clients": args.clients, "requests": args.requests, "tokens": args.tokens, "stream": stream}
        result = LoadResult(**post(server, "/run", load | {"messages": QUESTIONS}))
    else:
        result = uvloop.run(
            run_load(
                lambda index: payload(index, stream=stream, tokens=args.tokens, server=server.name),
                port=server.port,
                connections=args.clients,
                requests=args.requests,
            )
        )
    if result.errors or result.requests != args.requests:
        raise SystemExit(f"{server.name}: {result.errors} errors, {result.requests} of {args.requests} answered")
    return result


def answers(server: Server) -> list[str]:
    texts = []
    server.resume()
    for messages in QUESTIONS[:8]:
        body = {"model": "demo", "messages": messages, "max_tokens": 40, "temperature": 0.0}
        texts.append(post(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"])
    server.pause()
    return texts


def post(server: Server, path: str, body: dict[str, object]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", "x-api-key": KEY},
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)
    except OSError as error:
        raise SystemExit(f"{server.name} does not answer: {error}; its log is {server.log}") from error


def start(name: str, args: argparse.Namespace, logs: Path) -> Server:
    """Start one contender and wait until it is ready."""
    port = free_port()
    here = Path(__file__).parent
    common = ["--model", args.model, "--port", str(port), "--max-model-len", str(args.max_model_len)]
    compiled = ["--compiled"] if args.compiled else []
    replicas = ["--replicas", str(args.replicas), *compiled]
    env: dict[str, str] = {}
    if name in ("vllm", VLLM_ADAPTER):
        command = ["-m", "vllm.entrypoints.openai.api_server", *common, "--served-model-name", "demo"]
        command += ["--host", "127.0.0.1", "--disable-uvicorn-access-log"]
        command += [] if args.compiled else ["--enforce-eager"]
        if name == VLLM_ADAPTER:
            modules = [f"{adapter}={path}" for adapter, path in adapter_paths().items()]
            command += ["--enable-lora", "--lora-modules", *modules]
    elif name == BARE:
        command = [str(here / "serve_bare.py"), *common, *compiled]
    elif name == "trunnion":
        command = [str(here / "serve_ours.py"), *common, *replicas, "--topology", args.topology]
    elif name in VARIANTS:
        command = [str(here / "serve_ours.py"), *common, *replicas, *VARIANTS[name]]
        env = {"BENCH_KEYS": KEY}
    else:
        command = [str(here / "serve_peer.py"), *common, *replicas]
        env = PEERS[name]
    server = Server(name, [sys.executable, *command], port=port, log=logs / f"{name}.log", env=env)
    try:
        server.wait_ready(
            "/ready" if name == "trunnion" or name in VARIANTS else "/v1/models" if name in PEERS else "/health"
        )
    except BaseException:
        server.stop()
        raise
    return server


def ratios(series: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, str]]:
    """Return, for each contender but vLLM's own server, each figure's ratio to vLLM's."""
    found = {}
    for name, runs in series.items():
        base = series[VLLM_ADAPTER if name == "adapter" and VLLM_ADAPTER in series else "vllm"]
        if runs is not base:
            found[name] = {key: str(paired_ratio([s[key] for s in runs], [s[key] for s in base])) for key in FIGURES}
    return found


def compare(servers: list[Server], args: argparse.Namespace) -> dict[str, object]:
    """Run all pairs, plain and streaming, and return the figures. All servers but one are stopped at any time."""
    report: dict[str, object] = {}
    for stream in (False, True):
        mode = "stream" if stream else "plain"
        shares: dict[str, dict[str, float]] = {}
        series: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
        for pair in range(-args.warmup, args.pairs):
            for server in servers if pair % 2 else reversed(servers):
                server.resume()
                cpu, parts = server.cpu(), server.cpu_by_name()
                summary = measure(server, args, stream=stream).summary()
                summary["server_cpu_s"] = round(server.cpu() - cpu, 2)
                used = {key: value - parts.get(key, 0.0) for key, value in server.cpu_by_name().items()}
                shares[server.name] = {key: round(value, 2) for key, value in used.items() if value >= _WORTH}
                server.pause()
                if pair >= 0:
                    series[server.name].append(summary)
                print(f"{mode} {pair} {server.name}: {json.dumps(summary)}", flush=True)
        medians = {
            name: {key: round(statistics.median(s[key] for s in runs), 3) for key in runs[0]}
            for name, runs in series.items()
        }
        report[mode] = {"ratio": ratios(series), "median": medians, "cpu_s_of_last_run": shares, "runs": series}
    return report


def markdown(report: dict[str, object], command: str) -> str:
    lines = [f"# Serving: {report['name']}", "", f"`{command}`", "", str(report["machine"]), ""]
    lines += [
        "Ratios are to vLLM's own server, those of `adapter` to `vllm-adapter` where that ran: median of the pairs"
    ]
    lines += ["with the 90 % bootstrap interval.", ""]
    lines += ["| mode | figure | server | median | ratio |", "|---|---|---|---|---|"]
    for mode in ("plain", "stream"):
        part = report[mode]
        for key in FIGURES:
            if mode == "plain" and key == "itl_p90_ms":
                continue
            for name, medians in part["median"].items():
                ratio = part["ratio"].get(name, {}).get(key, "1")
                lines.append(f"| {mode} | {key} | {name} | {medians[key]} | {ratio} |")
    lines += ["", f"Same greedy text as vLLM's: {report['same_text']}. Start-up, s: {report['startup_s']}.", ""]
    for mode in ("plain", "stream"):
        lines += [f"CPU by process, s, of the last {mode} run: {json.dumps(report[mode]['cpu_s_of_last_run'])}", ""]
    lines += [f"Memory (MiB, proportional): {json.dumps(report['memory_mib'])}", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(model_path()))
    parser.add_argument("--topology", default="direct")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=640, help="per run")
    parser.add_argument("--tokens", type=int, default=16, help="forced completion tokens")
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--compiled", action="store_true", help="let vLLM compile the model, as it does by default")
    parser.add_argument("--replicas", type=int, default=1, help="of Ray's contenders; vLLM's own server has one engine")
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS, help="measure ray.serve.llm as well")
    ways = (*VARIANTS, VLLM_ADAPTER, BARE)
    parser.add_argument("--variants", nargs="*", default=[], choices=ways, help="measure other ways as well")
    parser.add_argument("--name", default="", help="of the results; topology-clients-tokens by default")
    args = parser.parse_args()
    name = args.name or f"{args.topology}-c{args.clients}-t{args.tokens}{'-compiled' * args.compiled}"
    logs = Path(tempfile.mkdtemp(prefix="trunnion-bench-"))
    print(f"logs in {logs}", flush=True)
    servers: list[Server] = []
    try:
        for contender in ("vllm", "trunnion", *args.variants, *args.peers):
            servers.append(start(contender, args, logs))
            servers[-1].pause()
        report: dict[str, object] = {"name": name, "date": time.strftime("%Y-%m-%d"), "settings": vars(args)}
        report["machine"] = (
            f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
        )
        report["startup_s"] = {server.name: round(server.startup, 1) for server in servers}
        texts = {server.name: answers(server) for server in servers}
        report["same_text"] = {server.name: texts[server.name] == texts["vllm"] for server in servers[1:]}
        report |= compare(servers, args)
        report["memory_mib"] = {server.name: server.memory() for server in servers}
    finally:
        for server in servers:
            server.stop()
    RESULTS.mkdir(exist_ok=True)
    report["settings"]["model"] = "the demo model" if args.model == str(model_path()) else args.model
    command = "python benches/serving.py " + " ".join(sys.argv[1:])
    (RESULTS / f"serving-{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / f"serving-{name}.md").write_text(markdown(report, command.strip()))
    print(markdown(report, command.strip()))


if __name__ == "__main__":
    main()
