"""Choose what vLLM's CPU build needs told on ordinary machines, where neither config nor environment says it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_GIB: Final = 1024**3
_INSIDE: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
_SHARE: Final = 4
"""The KV caches of all ranks together take one part in so many of the memory that is free."""
_MOST_GIB: Final = 4


def unasked_binding(ranks: int) -> str | None:
    """Return a value of VLLM_CPU_OMP_THREADS_BIND where nobody gave one; None to leave it to vLLM, for one rank.

    Where OMP_NUM_THREADS says how many threads there are to be, as in Ray's actors, ranks are left unbound: vLLM would
    set that variable itself, to the number of cores it binds them to.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return "nobind"
    return thread_groups(ranks) if ranks > 1 else None


def executor(ranks: int) -> str | None:
    """Return a value of distributed_executor_backend where nobody gave one; None to leave it to vLLM.

    vLLM's CPU build gives even a lone rank a process of its own, since it sets up OpenMP in the environment of that
    process. Passing each step over to it and back takes two fifths of the engine's CPU time with a small model. Where
    threads are unbound and their number is in the environment already, nothing is left to set up: the rank then runs
    inside the engine's own process, as it does on a GPU. The class is named in full, for vLLM turns "uni" into "mp".
    """
    set_up = os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind" and "OMP_NUM_THREADS" in os.environ
    return _INSIDE if ranks == 1 and set_up else None


def thread_groups(ranks: int) -> str:
    """Return a value of VLLM_CPU_OMP_THREADS_BIND that gives each rank its share of this process's cores.

    vLLM's own default gives every rank a NUMA node and refuses to start where there are fewer nodes than ranks, as on
    most machines with one socket. Where there are fewer cores than ranks, threads are left unbound.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = sorted(affinity(0)) if affinity is not None else list(range(os.cpu_count() or 1))
    share = len(cores) // ranks
    if not share:
        return "nobind"
    groups = (cores[rank * share : (rank + 1) * share] for rank in range(ranks))
    return "|".join(",".join(map(str, group)) for group in groups)


def kv_cache_gib(ranks: int) -> int | None:
    """Return a value of VLLM_CPU_KVCACHE_SPACE: GiB of KV cache per rank, 1 to 4; None where memory is unknown.

    vLLM's own default takes 92 % of *all* memory and refuses to start where something else runs on the machine.
    """
    free = free_memory()
    return None if free is None else max(1, min(_MOST_GIB, free // _SHARE // ranks // _GIB))


def free_memory() -> int | None:
    """Return the bytes that can be taken, within the control group's limit; None where the system does not say."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.extend(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        found.append(max(0, int(limit) - int(used)))
    return min(found, default=None)
