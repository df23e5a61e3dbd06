"""Import vLLM, all of it that this plugin uses, in one place. Written for 0.25.1 up to 0.33.

Beyond the public names (AsyncEngineArgs, AsyncLLM, the params, the exceptions) it relies on these:
``AsyncLLM.add_request`` returning a collector with ``get`` and ``get_nowait``; prompts of ``{"type": "token"}``
taken without preprocessing; stat loggers called as ``record(scheduler_stats=..., engine_idx=...)``;
``SamplingParams.skip_clone``; the wire format of the KV events; the renderer's ``render_chat_async``,
``render_messages_async`` and ``render_cmpl_async``; ``AsyncLLM.engine_core.resources`` with what holds its processes.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import vllm
from vllm import PoolingParams, SamplingParams
from vllm.distributed.kv_events import KVEventBatch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.renderers.params import ChatParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.usage.usage_lib import UsageContext
from vllm.v1.core import kv_cache_utils
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.loggers import AggregateStatLoggerBase, PrometheusStatLogger

try:
    from vllm import exceptions as _exceptions
except ImportError:  # every name below has a fallback
    _exceptions = None


def _errors(*names: str) -> tuple[type[Exception], ...]:
    """Return the classes of vllm.exceptions that exist in this version."""
    found = (getattr(_exceptions, name, None) for name in names)
    return tuple(cls for cls in found if isinstance(cls, type))


VERSION: str = vllm.__version__
SAMPLING_FIELDS = frozenset(SamplingParams.__struct_fields__)
# Before they had classes of their own, refusals were ValueErrors.
CLIENT_ERRORS = (*_errors("VLLMClientError", "VLLMValidationError"), ValueError, TypeError)
NOT_FOUND_ERRORS = _errors("VLLMNotFoundError", "LoRAAdapterNotFoundError")
RETRYABLE_ERRORS = _errors("RetryableRequestError")
BUSY_ERRORS = _errors("QueueOverflowError", "MaxQueuedTokensError", "GracefulHTTPError")


def on_cpu() -> bool:
    """Tell whether this build of vLLM runs on CPUs."""
    return bool(current_platform.is_cpu())


def compiles(vllm_config: Any) -> bool:
    """Tell whether the model is compiled; on CPU builds neither ``enforce_eager`` nor LoRA leaves it so."""
    return bool(vllm_config.compilation_config.mode)  # CompilationMode.NONE is 0


def engine_arg_defaults() -> dict[str, Any]:
    """Return every engine argument with vLLM's default; a default that is made anew each time is made once."""
    defaults = {}
    for field in dataclasses.fields(AsyncEngineArgs):
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
        else:
            defaults[field.name] = field.default
    return defaults


def with_config_objects(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return engine arguments with each JSON object that stands for a config class made into one.

    vLLM's command line does this in its parser, AsyncEngineArgs itself only for some fields.
    """
    made = dict(args)
    for field in dataclasses.fields(AsyncEngineArgs):
        value = args.get(field.name)
        if not isinstance(value, dict):
            continue
        kinds = typing.get_args(field.type) or (field.type,)
        configs = [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
        if len(configs) == 1 and not any(typing.get_origin(kind) is dict or kind is dict for kind in kinds):
            made[field.name] = configs[0](**value)
    return made


def stat_logger_factory(on_step: Callable[[int, Any], None], *, only: bool) -> Any:
    """Return a stat logger factory that calls ``on_step(rank, scheduler_stats)`` after every engine step.

    vLLM adds its Prometheus logger, whose counters cost time in every step, wherever statistics are on and no
    logger given is one. ``only`` makes ours pass for one, so that it runs alone.
    """

    class StepLogger(PrometheusStatLogger if only else AggregateStatLoggerBase):  # type: ignore[misc]
        def __init__(self, *_: Any, **__: Any) -> None:  # the base's would register its metrics
            pass

        def record(self, scheduler_stats: Any = None, *_: Any, engine_idx: int = 0, **__: Any) -> None:
            if scheduler_stats is not None:
                on_step(engine_idx, scheduler_stats)

        def log(self) -> None:
            pass

        def log_engine_initialized(self) -> None:
            pass

        def record_sleep_state(self, *_: Any, **__: Any) -> None:
            pass

        def record_admission_rejection(self, *_: Any, **__: Any) -> None:
            pass

    return StepLogger


def kv_event_decoder() -> Callable[[bytes], Any]:
    """Return what makes a KVEventBatch of the payload that vLLM publishes."""
    return msgspec.msgpack.Decoder(KVEventBatch).decode


def block_hash_seed(algorithm: str) -> str | None:
    """Return the seed of the hash of a prompt's first block; None where each process draws its own at random.

    Versions before the seed was made a fixed one for collision-resistant hashes draw it, unless PYTHONHASHSEED is set.
    """
    seed = os.environ.get("PYTHONHASHSEED")
    if seed is None and algorithm.startswith("sha256"):
        seed = getattr(kv_cache_utils, "DEFAULT_NONE_HASH_SEED", None)
    return seed


def skip_request_stats(llm: Any) -> None:
    """Leave out the statistics that vLLM keeps per request and token in this process.

    Only its own loggers and tracer read them, and they cost a fifth of this process's time; the scheduler's
    statistics, which the engine's process sends along with each step, come all the same. Must be called before the
    output handler starts, which is so for an AsyncLLM made outside an event loop.
    """
    if getattr(llm, "output_handler", None) is None and not llm.output_processor.tracing_enabled:
        llm.log_stats = llm.output_processor.log_stats = False


__all__ = [
    "BUSY_ERRORS",
    "CLIENT_ERRORS",
    "NOT_FOUND_ERRORS",
    "RETRYABLE_ERRORS",
    "SAMPLING_FIELDS",
    "VERSION",
    "AsyncEngineArgs",
    "AsyncLLM",
    "ChatParams",
    "EngineDeadError",
    "EngineGenerateError",
    "LoRARequest",
    "PoolingParams",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
    "UsageContext",
    "block_hash_seed",
    "compiles",
    "engine_arg_defaults",
    "kv_event_decoder",
    "on_cpu",
    "skip_request_stats",
    "stat_logger_factory",
    "with_config_objects",
]
