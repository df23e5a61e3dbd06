"""Fixtures that all tests share: one Ray and one Serve for the whole run, started only where a test asks for them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from vllm_cpu import VLLM_CPU

pytest_plugins = ["trunnion.testing"]


def free_port():
    """Return a TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def ray_session():
    """Start a Ray of our own with 4 logical CPUs; yield the module."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    root = Path(__file__).parents[1]
    folders = [str(root / part) for part in ("core", "plugins", "adapters")]
    folders += [entry for entry in sys.path if entry.startswith(str(root / "tests"))]  # workers import the tests' code
    folders += filter(None, [os.environ.get("PYTHONPATH")])
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        address="local",
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(folders), "RAY_USAGE_STATS_ENABLED": "0"}},
    )
    try:
        yield ray
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def serve_session(ray_session):
    """Start Ray Serve on a free port of 127.0.0.1; yield the base URL. Tests run and delete their own applications."""
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port, "location": "HeadOnly"})
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


@pytest.fixture(scope="session")
def vllm_url():
    """Run vLLM's own server on the demo model, adapters included; yield the base URL."""
    pytest.importorskip("vllm")
    from trunnion_demo import adapter_paths, model_path

    port = free_port()
    settings = {**VLLM_CPU, "VLLM_LOGGING_LEVEL": "WARNING"}
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_path()),
        "--served-model-name", "demo", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager",
        "--max-model-len", "1024", "--enable-lora", "--max-loras", "3", "--max-lora-rank", "16",
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--disable-log-stats",
        "--enable-prompt-tokens-details",
        "--lora-modules", *(f"{name}={path}" for name, path in adapter_paths().items()),
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        env={**settings, **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = []
    threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True).start()
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 600
        while True:
            assert process.poll() is None, "".join(lines[-40:])
            assert time.monotonic() < end, "".join(lines[-40:])
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        yield f"{url}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the engine's own processes too
            process.wait()
