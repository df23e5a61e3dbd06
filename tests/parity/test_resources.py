"""What an engine declares to need is what it then uses: ranks, compute threads, processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trunnion
from trunnion import SyncPipeline
from trunnion_demo import model_path
from trunnion_http import PipelineModel, create_app, make_server

PROGRAM = Path(__file__).with_name("used_program.py")
MODEL = str(model_path())
VLLM = {
    "enforce_eager": True,
    "max_model_len": 512,
    "dtype": "float32",
    "engine_kwargs": {"worker_extension_cls": "used_program.ComputeThreads"},
}
CORES = os.cpu_count() or 1
two_cores = pytest.mark.skipif(CORES < 2, reason="two cores are to be bound")
slow = (pytest.mark.engine, pytest.mark.timeout(900))
CASES = [
    pytest.param("sim", "", {}, {}, [], id="sim"),
    pytest.param("transformers", MODEL, {"threads": 1}, {}, [1], id="transformers-1", marks=slow),
    pytest.param("transformers", MODEL, {"threads": 2}, {}, [2], id="transformers-2", marks=slow),
    pytest.param("transformers", MODEL, {}, {"OMP_NUM_THREADS": "1"}, [1], id="transformers-as-ray", marks=slow),
    pytest.param("vllm", MODEL, VLLM, {"OMP_NUM_THREADS": "1"}, [1], id="vllm-as-ray", marks=slow),
    pytest.param("vllm", MODEL, {**VLLM, "cpu_threads_bind": "0-1"}, {}, [2], id="vllm-2", marks=(*slow, two_cores)),
    pytest.param(
        "vllm",
        MODEL,
        {**VLLM, "tensor_parallel_size": 2},
        {"OMP_NUM_THREADS": "1"},
        [1, 1],
        id="vllm-ranks",
        marks=slow,
    ),
]
"""Engine, model, config, further environment, and the compute threads of each rank; none where nothing is computed.

Ray sets OMP_NUM_THREADS to the CPUs that a replica asked for.
"""


def used(name: str, model: str, config: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Return what the engine was seen to be made of."""
    unset = ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND")
    held = {key: value for key, value in os.environ.items() if key not in unset}
    paths = [str(PROGRAM.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    defaults = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), name, model, json.dumps(config)],
        env={**defaults, **held, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("SEEN ")]
    assert lines, ran.stdout[-2000:] + ran.stderr[-4000:]
    return json.loads(lines[0].removeprefix("SEEN "))


def check(name: str, config: dict[str, Any], seen: dict[str, Any], threads: list[int]) -> None:
    """Hold what is declared against what was seen."""
    declared = trunnion.get_registry().resources(trunnion.engine_spec(name, None if name == "sim" else MODEL, config))
    (bundle,) = declared.bundles
    assert declared.workers == "engine"
    assert seen["threads"] == threads
    assert bundle.gpu == 0
    if threads:
        assert bundle.cpu == sum(threads)
    else:
        assert not seen["torch"]
        assert bundle.cpu <= 1
    workers = [process for process in seen["processes"] if "VLLM::Worker" in process]
    cores = [process for process in seen["processes"] if "VLLM::EngineCore" in process]
    if name == "vllm":
        assert len(cores) == 1
        assert len(workers) == len(threads) or (not workers and len(threads) == 1)  # inside the core
    assert len(seen["processes"]) == len(workers) + len(cores)
    assert not [process for process in seen["processes"] if "ray::" in process]
    assert bundle.memory is None or seen["memory"] <= bundle.memory


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model", "config", "environment", "threads"), CASES)
def test_an_engine_uses_what_it_declares(name, model, config, environment, threads) -> None:
    check(name, config, used(name, model, config, environment), threads)


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Serve the simulated engine over HTTP."""
    import asyncio

    with SyncPipeline(trunnion.engine_spec("sim")) as pipeline:
        server = make_server(create_app([PipelineModel("simulated", pipeline.pipeline)]), port=0)
        serving = pipeline._thread.submit(server.serve())

        async def ready() -> int:
            while not server.started:
                await asyncio.sleep(0.02)
            return server.servers[0].sockets[0].getsockname()[1]

        yield f"http://127.0.0.1:{pipeline._thread.run(ready())}/v1"
        server.should_exit = True
        serving.result(timeout=30)


@pytest.mark.slow
def test_an_endpoint_takes_a_client_alone(endpoint: str) -> None:
    config = {"base_url": endpoint}
    seen = used("openai", "simulated", config, {})
    check("openai", config, seen, [])
    assert seen["processes"] == []
