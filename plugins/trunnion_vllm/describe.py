"""Describe a started vLLM: its EngineInfo, with capabilities narrowed to the model and the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trunnion.capabilities import FEATURES, Capabilities, Support
from trunnion.engine import EngineInfo, KVLayout, TokenizerRef

from . import _vllm
from .capabilities import UPPER_BOUND


def capacity(vllm_config: Any) -> int:
    """Return how many sequences run at once, over all data-parallel ranks."""
    ranks: int = vllm_config.parallel_config.data_parallel_size
    return int(vllm_config.scheduler_config.max_num_seqs) * ranks


def describe(model: str, vllm_config: Any, tasks: tuple[str, ...], adapters: tuple[str, ...]) -> EngineInfo:
    """Return what the pipeline and the adapters need to know of a started engine."""
    config, cache = vllm_config.model_config, vllm_config.cache_config
    parallel = vllm_config.parallel_config
    layout = None
    if cache.enable_prefix_caching and cache.block_size:
        layout = KVLayout(
            block_size=int(cache.block_size),
            hash=str(cache.prefix_caching_hash_algo),
            seed=os.environ.get("PYTHONHASHSEED"),
        )
    return EngineInfo(
        engine="vllm",
        model=model,
        context_length=int(config.max_model_len),
        tokenizer=TokenizerRef(
            path=str(config.tokenizer),
            revision=config.tokenizer_revision,
            trust_remote_code=bool(config.trust_remote_code),
        ),
        concurrency=capacity(vllm_config),
        capabilities=narrow(vllm_config, tasks),
        adapters=adapters,
        data_parallel=int(parallel.data_parallel_size),
        kv_layout=layout,
        library=f"vllm {_vllm.VERSION}",
        details={
            "dtype": str(config.dtype).removeprefix("torch."),
            "tensor_parallel": int(parallel.tensor_parallel_size),
            "pipeline_parallel": int(parallel.pipeline_parallel_size),
            "max_num_seqs": int(vllm_config.scheduler_config.max_num_seqs),
            "kv_blocks": cache.num_gpu_blocks,
            "default_sampling": dict(config.get_diff_sampling_param()),
        },
    )


def narrow(vllm_config: Any, tasks: tuple[str, ...]) -> Capabilities:
    """Lower the plugin's upper bound for what was started; each lowering has its reason."""
    lowered: dict[str, tuple[Support, str]] = {}
    protocols = set(UPPER_BOUND.protocols)
    if "generate" not in tasks:
        lowered = dict.fromkeys(FEATURES, (Support.NO, "the model embeds, it does not generate"))
    if "embed" not in tasks:
        protocols.discard("embeds/1")
    if vllm_config.lora_config is None:
        protocols.discard("hot_adapters/1")
    if vllm_config.scheduler_config.policy != "priority":
        lowered["priority"] = (Support.NO, 'it takes engine_kwargs={"scheduling_policy": "priority"}')
    if vllm_config.observability_config.otlp_traces_endpoint is None:
        lowered["trace"] = (Support.NO, "no otlp_traces_endpoint is configured")
    if vllm_config.speculative_config is not None:
        why = (Support.UNKNOWN, "vLLM refuses it with speculative decoding in most versions")
        lowered.update(dict.fromkeys(("sampling.min_p", "sampling.logit_bias"), why))
    if getattr(vllm_config.model_config, "skip_tokenizer_init", False):
        why = (Support.NO, "the engine runs without a tokenizer")
        text = ("sampling.stop", "output_format.json_object", "output_format.json_schema", "output_format.regex")
        lowered.update(dict.fromkeys((*text, "output_format.choice", "output_format.grammar"), why))
    return _lower(UPPER_BOUND, lowered, protocols)


def _lower(bound: Capabilities, lowered: Mapping[str, tuple[Support, str]], protocols: set[str]) -> Capabilities:
    return replace(
        bound,
        features={**bound.features, **{name: support for name, (support, _) in lowered.items()}},
        reasons={**bound.reasons, **{name: reason for name, (_, reason) in lowered.items()}},
        protocols=frozenset(protocols),
    )
