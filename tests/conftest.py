"""Fixtures that all tests share: one Ray and one Serve for the whole run, started only where a test asks for them."""

import os
import socket
import sys
from pathlib import Path

import pytest


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
