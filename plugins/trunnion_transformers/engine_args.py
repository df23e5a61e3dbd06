"""Know the fields of the library's ContinuousBatchingConfig without importing it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from trunnion.plugin_tools import fields_in_source, first_unknown

_STEP: Final = "every request is sampled by Python code of its own in each step, which a graph would leave out"
OURS: Final = {
    "use_cuda_graph": _STEP,
    "use_async_batching": "the sampler must see a step's tokens before the next one",
    "varlen_compile_config": _STEP,
    "decode_compile_config": _STEP,
    "default_compile_level": _STEP,
    "use_default_compile_configs": _STEP,
    "q_padding_interval_size": _STEP,
    "kv_padding_interval_size": _STEP,
    "scheduler_type": "the engine's own scheduler keeps adapters apart",
    "return_logprobs": "ask for sampling.logprobs per request",
    "per_request_processors": "sampling is per request always",
    "drop_unsupported_processors": "the engine brings its own sampler",
    "max_queue_size": "requests wait in the engine, and load() counts them",
    "auto_switch_to_flash": "set attention",
    "block_size": "set page_size",
    "max_cached_graphs": "the library ignores it",
}
"""Fields that this engine sets itself, with the reason."""


@lru_cache(maxsize=1)
def known_engine_args() -> frozenset[str]:
    """Return the field names of ContinuousBatchingConfig, read from the source; empty where it is not installed."""
    return fields_in_source("transformers", "generation/configuration_utils.py", ("ContinuousBatchingConfig",))


def unknown_args_message(given: Iterable[str], known: Iterable[str]) -> str | None:
    """Return why a name among ``given`` cannot be set, with a suggestion; None if all can."""
    names = set(known) - set(OURS)
    otherwise = f"there are: {', '.join(sorted(names))}"
    return first_unknown(given, names, what="ContinuousBatchingConfig has no field", otherwise=otherwise)
