"""Measure serving through Ray Serve against vLLM's own API server: requests/s, TTFT, memory, start-up.

    python benches/serving.py --pairs 7

Both servers run the same model with the same engine settings and environment; they are measured in turn
(A B A B ...), the one that is not measured stopped with SIGSTOP. Greedy answers of both are compared first: a speed
without the same text means nothing. Writes benches/results/serving-<name>.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import uvloop

from http_client import LoadResult, http_request, run_load
from processes import Server
from stats import paired_ratio
from trunnion_demo import PROMPTS, model_path

RESULTS = Path(__file__).parent / "results"
QUESTIONS = [prompt.messages for prompt in PROMPTS if not prompt.tools]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def payload(index: int, *, stream: bool, tokens: int) -> bytes:
    """Return request ``index``: one of the demo prompts with ``tokens`` forced tokens."""
    body = {
        "model": "demo",
        "messages": QUESTIONS[index % len(QUESTIONS)],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": stream,
    }
    return http_request("/v1/chat/completions", json.dumps(body).encode())


def measure(server: Server, args: argparse.Namespace, *, stream: bool) -> LoadResult:
    result = uvloop.run(
        run_load(
            lambda index: payload(index, stream=stream, tokens=args.tokens),
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
    for messages in QUESTIONS[:8]:
        body = {"model": "demo", "messages": messages, "max_tokens": 40, "temperature": 0.0}
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            texts.append(json.load(response)["choices"][0]["message"]["content"])
    return texts


def vllm_server(args: argparse.Namespace, logs: Path) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", args.model]
    command += ["--served-model-name", "demo", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--max-model-len", str(args.max_model_len), "--disable-uvicorn-access-log"]
    return Server("vllm", command, port=port, log=logs / "vllm.log")


def our_server(args: argparse.Namespace, logs: Path) -> Server:
    port = free_port()
    command = [sys.executable, str(Path(__file__).parent / "serve_ours.py"), "--model", args.model]
    command += ["--port", str(port), "--topology", args.topology, "--max-model-len", str(args.max_model_len)]
    return Server("trunnion", command, port=port, log=logs / "trunnion.log")


def compare(ours: Server, theirs: Server, args: argparse.Namespace) -> dict[str, object]:
    """Run all pairs, plain and streaming, and return the figures."""
    report: dict[str, object] = {}
    for stream in (False, True):
        series: dict[str, list[dict[str, float]]] = {"trunnion": [], "vllm": []}
        for pair in range(-args.warmup, args.pairs):
            order = (ours, theirs) if pair % 2 else (theirs, ours)
            for server in order:
                other = theirs if server is ours else ours
                other.pause()
                server.resume()
                cpu = server.cpu()
                summary = measure(server, args, stream=stream).summary()
                summary["server_cpu_s"] = round(server.cpu() - cpu, 2)
                other.resume()
                if pair >= 0:
                    series[server.name].append(summary)
                print(f"{'stream' if stream else 'plain'} {pair} {server.name}: {json.dumps(summary)}", flush=True)
        ratios = {
            key: str(paired_ratio([s[key] for s in series["trunnion"]], [s[key] for s in series["vllm"]]))
            for key in ("requests_per_s", "ttft_p50_ms", "latency_p50_ms", "latency_p99_ms", "server_cpu_s")
        }
        medians = {
            name: {key: round(statistics.median(s[key] for s in runs), 3) for key in runs[0]}
            for name, runs in series.items()
        }
        report["stream" if stream else "plain"] = {"ratio": ratios, "median": medians, "runs": series}
    return report


def markdown(report: dict[str, object], command: str) -> str:
    lines = [f"# Serving: {report['name']}", "", f"`{command}`", "", str(report["machine"]), ""]
    lines += ["Ratios are Trunnion / vLLM's own server, median of the pairs with the 90 % bootstrap interval.", ""]
    lines += ["| mode | figure | Trunnion | vLLM | ratio |", "|---|---|---|---|---|"]
    for mode in ("plain", "stream"):
        part = report[mode]
        for key, ratio in part["ratio"].items():
            ours, theirs = part["median"]["trunnion"][key], part["median"]["vllm"][key]
            lines.append(f"| {mode} | {key} | {ours} | {theirs} | {ratio} |")
    lines += ["", f"Same greedy text on both: {report['same_text']}. Start-up: {report['startup_s']} s.", ""]
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
    parser.add_argument("--name", default="", help="of the results; topology-clients-tokens by default")
    args = parser.parse_args()
    name = args.name or f"{args.topology}-c{args.clients}-t{args.tokens}"
    logs = Path(tempfile.mkdtemp(prefix="trunnion-bench-"))
    print(f"logs in {logs}", flush=True)
    theirs = vllm_server(args, logs)
    ours = None
    try:
        theirs.wait_ready("/health")
        theirs.pause()
        ours = our_server(args, logs)
        ours.wait_ready("/ready")
        theirs.resume()
        report: dict[str, object] = {"name": name, "date": time.strftime("%Y-%m-%d"), "settings": vars(args)}
        report["machine"] = (
            f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
        )
        report["startup_s"] = {"trunnion": round(ours.startup, 1), "vllm": round(theirs.startup, 1)}
        report["same_text"] = answers(ours) == answers(theirs)
        report |= compare(ours, theirs, args)
        report["memory_mib"] = {"trunnion": ours.memory(), "vllm": theirs.memory()}
    finally:
        theirs.stop()
        if ours is not None:
            ours.stop()
    RESULTS.mkdir(exist_ok=True)
    report["settings"]["model"] = "the demo model" if args.model == str(model_path()) else args.model
    command = "python benches/serving.py " + " ".join(sys.argv[1:])
    (RESULTS / f"serving-{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / f"serving-{name}.md").write_text(markdown(report, command.strip()))
    print(markdown(report, command.strip()))


if __name__ == "__main__":
    main()
