"""Describe a started vLLM: its EngineInfo, with capabilities narrowed to the model and the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from trunnion.capabilities import FEATURES, MEDIA_FEATURES, Capabilities, Support
from trunnion.engine import EngineInfo, KVLayout, TokenizerRef

from . import _vllm, kv_events, sleeping
from .capabilities import UPPER_BOUND
from .pooling import abilities

_NO_LORA: Final = 'it takes adapters={...} or engine_kwargs={"enable_lora": true}'


def capacity(vllm_config: Any) -> int:
    """Return how many sequences run at once, over all data-parallel ranks."""
    ranks: int = vllm_config.parallel_config.data_parallel_size
    return int(vllm_config.scheduler_config.max_num_seqs) * ranks


def describe(
    model: str, vllm_config: Any, tasks: tuple[str, ...], adapters: tuple[str, ...], media: frozenset[str]
) -> EngineInfo:
    """Return what the pipeline and the adapters need to know of a started engine.

    Args:
        model: Its path or name.
        vllm_config: What vLLM made of the arguments.
        tasks: What the model can be asked for.
        adapters: The names of those that are loaded.
        media: Which of image, audio and video the model takes.
    """
    config, cache = vllm_config.model_config, vllm_config.cache_config
    parallel = vllm_config.parallel_config
    layout = None
    if cache.enable_prefix_caching and cache.block_size:
        layout = KVLayout(
            block_size=int(cache.block_size),
            hash=str(cache.prefix_caching_hash_algo),
            seed=_vllm.block_hash_seed(str(cache.prefix_caching_hash_algo)),
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
        capabilities=narrow(vllm_config, tasks, media),
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


def narrow(vllm_config: Any, tasks: tuple[str, ...], media: frozenset[str]) -> Capabilities:
    """Lower the plugin's upper bound for what was started; each lowering has its reason."""
    lowered: dict[str, tuple[Support, str]] = {}
    for name in MEDIA_FEATURES:
        if name.removeprefix("media.") not in media:
            lowered[name] = (Support.NO, "the model, or limit_mm_per_prompt, takes none")
    if vllm_config.lora_config is None:
        lowered["adapter"] = (Support.NO, _NO_LORA)
    if "generate" not in tasks:
        lowered = dict.fromkeys(FEATURES, (Support.NO, "it runs with the pooling runner, which does not generate"))
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
    return _lower(UPPER_BOUND, lowered, lacking(vllm_config, tasks))


def lacking(vllm_config: Any, tasks: tuple[str, ...]) -> dict[str, str]:
    """Return the optional protocols that what was started does not have, with the reasons."""
    missing: dict[str, str] = {}
    able = abilities(tasks, vllm_config.model_config)
    what = "the model generates" if "generate" in tasks else "the model is made for something else"
    if not able.embeds:
        missing["embeds/1"] = f'{what}; an embedding model, or runner="pooling", embeds'
    if not able.scores:
        missing["scores/1"] = f"{what}; an embedding model or a cross-encoder scores"
    if not able.classifies:
        missing["classifies/1"] = f"{what}; a sequence classification model of two labels or more classifies"
    if vllm_config.lora_config is None:
        missing["hot_adapters/1"] = _NO_LORA
    if not vllm_config.cache_config.enable_prefix_caching:
        missing["resets_cache/1"] = "prefix caching is off"
    if not kv_events.can_follow(vllm_config):
        missing[kv_events.CAPABILITY] = kv_events.WHY_NOT
    if not getattr(vllm_config.model_config, "enable_sleep_mode", False):
        why = sleeping.WHY_NOT_ON_CPU if _vllm.on_cpu() else sleeping.WHY_NOT_ASKED
        missing[sleeping.CAPABILITY] = why
    return missing


def _lower(bound: Capabilities, lowered: Mapping[str, tuple[Support, str]], missing: Mapping[str, str]) -> Capabilities:
    return replace(
        bound,
        features={**bound.features, **{name: support for name, (support, _) in lowered.items()}},
        reasons={**bound.reasons, **{name: reason for name, (_, reason) in lowered.items()}, **missing},
        protocols=bound.protocols - missing.keys(),
    )
