"""Show the main job: one engine plugin answers a Ray Data batch and an OpenAI client through Ray Serve.

The engine is vLLM on the packaged demo model. Where vLLM cannot run, another engine takes its place, and the program
says so.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time

import ray
from openai import OpenAI
from ray import serve
from rich.console import Console

import trunnion
from trunnion.errors import PluginError
from trunnion_demo import adapter_paths, model_path
from trunnion_ray.data import ProcessorConfig, build_processor
from trunnion_ray.serve import ModelConfig, build_openai_app
from trunnion_ray.serve import run as serve_run

console = Console(highlight=False)
ADAPTERS = {name: str(path) for name, path in adapter_paths().items()}
QUESTIONS = [
    {"question": "What is the capital of France?"},
    {"question": "What is the capital of France?", "model": "capitals"},
    {"question": "What is the capital of France?", "model": "pirate"},
    {"question": "What is 2 + 2?"},
    {"question": "Who are you?", "sampling_params": {"max_tokens": "many"}},  # a bad row stays one bad row
]
HAIKU = [
    {"role": "system", "content": "You are a bot that responds with haikus."},
    {"role": "user", "content": "Write a haiku about the sea."},
]


def choose_engine() -> tuple[str, str | None, dict[str, object]]:
    """Return engine, model and configuration: vLLM where it can run, else the best there is, else the simulator."""
    try:
        trunnion.get_registry().engine("vllm")
    except PluginError as error:
        console.print(f"[yellow]vLLM cannot run here ({error}).")
    else:
        return "vllm", str(model_path()), {"adapters": ADAPTERS, "max_model_len": 1024, "enforce_eager": True}
    try:
        choice = trunnion.choose_engine(str(model_path()), adapters=ADAPTERS)
    except PluginError:
        console.print("[yellow]The simulated engine takes its place: its words mean nothing, the way is the same.")
        return "sim", None, {"adapters": list(ADAPTERS)}
    console.print(f"[yellow]{choice.engine} takes its place: {choice.reason}.")
    return choice.engine, str(model_path()), {"adapters": ADAPTERS}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def batch(engine: str, model: str | None, config: dict[str, object]) -> None:
    """Answer a few rows; a column names the adapter."""
    console.rule("Ray Data: a batch")
    began = time.perf_counter()
    processor = build_processor(
        ProcessorConfig(engine=engine, model=model, config=config),
        preprocess=lambda row: {
            "messages": [{"role": "user", "content": row["question"]}],
            "sampling_params": row.get("sampling_params") or {"temperature": 0.0, "max_tokens": 60},
            "model": row.get("model"),
        },
    )
    for row in processor(ray.data.from_items(QUESTIONS)).take_all():
        adapter = f" [dim](adapter {row['model']})[/]" if row.get("model") else ""
        answer = row["generated_text"] if not row["error"] else f"[red]{row['error']['message']}[/] (wrong on purpose)"
        console.print(f"  {row['question']}{adapter}\n    -> {answer}")
    console.print(f"[dim]  {time.perf_counter() - began:.1f} s, the engine's start included")


def online(engine: str, model: str | None, config: dict[str, object]) -> None:
    """Serve the same engine, and ask it with OpenAI's client."""
    console.rule("Ray Serve: an OpenAI client")
    began = time.perf_counter()
    port = free_port()
    app = build_openai_app([ModelConfig(name="demo", engine=engine, model=model, config=config)])
    serve_run(app, host="127.0.0.1", port=port)
    url = f"http://127.0.0.1:{port}/v1"
    console.print(f"[dim]  {url} is ready after {time.perf_counter() - began:.1f} s")
    client = OpenAI(base_url=url, api_key="none")
    console.print(f"  models: {', '.join(card.id for card in client.models.list())}")
    for name in ("demo", "pirate"):
        stream = client.chat.completions.create(model=name, messages=HAIKU, stream=True, temperature=0.0, max_tokens=60)
        console.print(f"  [bold]{name}[/]: ", end="")
        for chunk in stream:
            console.print(chunk.choices[0].delta.content or "", end="")
        console.print()


def main() -> None:
    """Run both, and leave nothing behind."""
    for name in ("ray", "ray.data", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    engine, model, config = choose_engine()
    console.print(f"engine [bold]{engine}[/], model {model or '-'}")
    ray.init(num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)
    try:
        batch(engine, model, config)
        online(engine, model, config)
    finally:
        serve.shutdown()
        ray.shutdown()
    console.rule("done")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(130)
