"""Name settings of known machines: step times and KV cache.

``vllm-cpu-2core`` was measured (see ``docs/sim.md``). Those of GPUs are **derived**, not measured: a roofline over the
vendors' datasheets, each figure with its source below. They say which of two plans is better sooner than how many
milliseconds one takes; fit your own with ``trunnion sim fit``.

The roofline, for weights and KV in 16 bits::

    base              = 2 * parameters / (BANDWIDTH_USE * bandwidth) + LAUNCH
    per_context_token = KV bytes per token / (BANDWIDTH_USE * bandwidth)
    per_prompt_token  = 2 * parameters / (COMPUTE_USE * dense 16-bit FLOP/s)
    per_sequence      = per_prompt_token            (a decode computes one token)
    KV blocks         = (MEMORY_USE * memory * GPUs - 2 * parameters) / (KV bytes per token * block size)

A step's time is that of one GPU; ``tensor_parallel_size`` divides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

BANDWIDTH_USE: Final = 0.8
COMPUTE_USE: Final = 0.5
MEMORY_USE: Final = 0.9
"""Share of memory vLLM takes by default (``gpu_memory_utilization``); the two above are customary estimates."""
LAUNCH: Final = 0.001
"""Seconds per step for what no roofline holds: scheduling, sampling, launches. An estimate."""
_BLOCK: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Hold a datasheet's figures: bytes, bytes/s, and dense 16-bit FLOP/s."""

    memory: float
    bandwidth: float
    flops: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Hold a model's figures: parameters, and KV bytes per token (2 * layers * KV heads * head size * 2 bytes)."""

    parameters: float
    kv_bytes: int
    source: str


GPUS: Final = {
    "h100": Gpu(
        memory=80e9,
        bandwidth=3.35e12,
        flops=989e12,  # 1,979 with sparsity
        source="H100 SXM, https://www.nvidia.com/en-us/data-center/h100/",
    ),
    "a100": Gpu(
        memory=80e9,
        bandwidth=2.039e12,
        flops=312e12,
        source="A100 80GB SXM, https://www.nvidia.com/en-us/data-center/a100/",
    ),
    "l4": Gpu(
        memory=24e9,
        bandwidth=300e9,
        flops=121e12,  # 242 with sparsity
        source="L4, https://www.nvidia.com/en-us/data-center/l4/",
    ),
}
MODELS: Final = {
    "8b": Model(
        parameters=8.03e9,
        kv_bytes=2 * 32 * 8 * 128 * 2,
        source="Llama 3.1 8B: 32 layers, 8 KV heads of 128; https://arxiv.org/abs/2407.21783, table 3",
    ),
    "70b": Model(
        parameters=70.6e9,
        kv_bytes=2 * 80 * 8 * 128 * 2,
        source="Llama 3.1 70B: 80 layers, 8 KV heads of 128; https://arxiv.org/abs/2407.21783, table 3",
    ),
}
_GPUS_NEEDED: Final = {("h100", "70b"): 4, ("a100", "70b"): 4, ("l4", "70b"): 8}


def derived(gpu: Gpu, model: Model, *, gpus: int = 1) -> dict[str, Any]:
    """Return the settings that the roofline gives for a model on so many GPUs, tensor-parallel."""
    read = BANDWIDTH_USE * gpu.bandwidth
    per_token = 2 * model.parameters / (COMPUTE_USE * gpu.flops)
    cache = MEMORY_USE * gpu.memory * gpus - 2 * model.parameters
    return {
        "step": {
            "base": _digits(2 * model.parameters / read + LAUNCH),
            "per_sequence": _digits(per_token),
            "per_context_token": _digits(model.kv_bytes / read),
            "per_prompt_token": _digits(per_token),
        },
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "block_size": _BLOCK,
        "num_gpu_blocks_override": int(cache / (model.kv_bytes * _BLOCK)),
        "max_model_len": 32768,
        "tensor_parallel_size": gpus,
    }


def _digits(seconds: float) -> float:
    return float(f"{seconds:.4g}")


MEASURED: Final[Mapping[str, Mapping[str, Any]]] = {
    "vllm-cpu-2core": {
        "step": {
            "base": 0.01162,
            "per_sequence": 0.0003201,
            "per_context_token": 1.017e-06,
            "per_prompt_token": 0.0002196,
        },
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "block_size": _BLOCK,
        "num_gpu_blocks_override": 16384,  # 1 GiB at 4 KiB per token
        "max_model_len": 2048,
    }
}
"""Fitted to ``benches/results/sim-steps-cpu.json``, which names the command: vLLM on two cores of an x86 machine,
with the demo model in float32. The machine was busy with other work, so its steps are slower than they could be."""

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    **{
        f"{gpu}-{model}": derived(GPUS[gpu], MODELS[model], gpus=_GPUS_NEEDED.get((gpu, model), 1))
        for gpu in GPUS
        for model in MODELS
    },
    **MEASURED,
}
"""Settings by name. What the user sets himself wins, key by key."""
