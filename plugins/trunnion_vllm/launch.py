"""Start vLLM: environment, engine arguments, the engine itself. Blocking; runs on a thread of its own."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from trunnion.errors import ConfigError, InternalError, ModelNotFound, TrunnionError
from trunnion.startup import StartupClock

from . import kv_events, ranks
from .adapters import lora_args, with_spare_slot
from .config import VLLMConfig
from .cpu_defaults import executor, kv_cache_gib, unasked_binding
from .engine_args import unknown_args_message
from .placement import device_of, world_size
from .spawn import without_interrupts, without_main

logger = logging.getLogger("trunnion.vllm")
KV_CACHE: Final = "VLLM_CPU_KVCACHE_SPACE"
THREADS: Final = "VLLM_CPU_OMP_THREADS_BIND"
LOG_STREAM: Final = "VLLM_LOGGING_STREAM"
"""vLLM logs to stdout, which belongs to the program that mounts it; stderr is taken unless the environment says."""
SHUTDOWN_TIMEOUT: Final = 20.0
"""Seconds that vLLM's processes have to end by themselves; their interpreters take some while over torch's heap."""

_REAP_SECONDS: Final = 10.0
"""Seconds that a killed process has to be gone; more than that means that the kernel holds it."""
_ranks: Final[WeakKeyDictionary[Any, list[Any]]] = WeakKeyDictionary()
"""What the processes of each engine have started."""


def check_model(model: str) -> None:
    """Refuse a path that is not there, before vLLM is imported.

    Raises:
        ModelNotFound: The model looks like a path and no such path exists.
    """
    if model.startswith(("/", "./", "../", "~")) and not Path(model).expanduser().exists():
        raise ModelNotFound(f"no model at {model}: the path does not exist", param="model")


def prepare_environment(config: VLLMConfig) -> None:
    """Set the CPU build's variables that the config asks for; what the environment holds already wins.

    Where neither says, what vLLM could not start with on an ordinary machine is replaced, see :mod:`.cpu_defaults`.
    """
    os.environ.setdefault(LOG_STREAM, "ext://sys.stderr")
    wanted: dict[str, int | str | None] = {KV_CACHE: config.kv_cache_gib, THREADS: config.cpu_threads_bind}
    if device_of(config) == "cpu":
        ranks = world_size(config)
        if wanted[THREADS] is None and THREADS not in os.environ:
            wanted[THREADS] = unasked_binding(ranks)
        if wanted[KV_CACHE] is None and KV_CACHE not in os.environ and config.gpu_memory_utilization is None:
            wanted[KV_CACHE] = kv_cache_gib(ranks)
    for name, value in wanted.items():
        if value is None:
            continue
        if device_of(config) != "cpu":
            raise ConfigError(f"{name} is for vLLM's CPU build, but the device is {device_of(config)}", param="device")
        held = os.environ.get(name)
        if held is None:
            os.environ[name] = str(value)
            logger.info("set %s=%s", name, value)
        elif held != str(value):
            logger.warning("kept %s=%s of the environment; the config asks for %s", name, held, value)


def build_args(model: str, config: VLLMConfig) -> Any:
    """Return AsyncEngineArgs, having logged once how they differ from vLLM's own defaults.

    Raises:
        ConfigError: An argument is unknown to this vLLM, or an adapter is not there.
    """
    from . import _vllm

    if config.device != "auto" and (config.device == "cpu") != _vllm.on_cpu():
        build = "CPU" if _vllm.on_cpu() else "GPU"
        raise ConfigError(f"device is {config.device!r}, but this is a {build} build of vLLM", param="device")
    defaults = _vllm.engine_arg_defaults()
    room = {} if config.max_loras is None else {"enable_lora": True}
    args = {**room, **lora_args(config.adapters), **config.engine_args()}
    if config.kv_events:
        args["kv_events_config"] = kv_events.events_config(args.get("kv_events_config"))
    if _vllm.on_cpu():
        args = with_spare_slot(args, len(config.adapters))
        if (inside := executor(world_size(config))) is not None:
            args.setdefault("distributed_executor_backend", inside)
    if wrong := unknown_args_message(args, defaults):
        raise ConfigError(f"{wrong} (vLLM {_vllm.VERSION})", param="engine_kwargs")
    changed = {name: value for name, value in args.items() if value != defaults[name]}
    logger.info("vLLM %s, arguments that differ from its defaults: %s", _vllm.VERSION, changed or "none")
    path = str(Path(model).expanduser()) if model.startswith("~") else model
    return _vllm.AsyncEngineArgs(model=path, **_vllm.with_config_objects(args))


def configure(model: str, config: VLLMConfig, clock: StartupClock | None = None) -> tuple[Any, Any]:
    """Return vLLM's own arguments and the VllmConfig that it makes of them; nothing is started.

    ``clock`` measures what it spends its time on.

    Raises:
        ConfigError: vLLM refuses the arguments.
        ModelNotFound: There is no such model.
        InternalError: vLLM cannot be imported.
    """
    check_model(model)
    prepare_environment(config)
    clock = clock or StartupClock()
    try:
        with clock.stage("import vllm"):
            from . import _vllm

        args = build_args(model, config)
        contexts = {"serve": _vllm.UsageContext.OPENAI_API_SERVER, "batch": _vllm.UsageContext.LLM_CLASS}
        made = args.create_engine_config(contexts[config.usage])
    except TrunnionError:
        raise
    except Exception as error:
        raise _startup_error(model, error) from error
    return args, made


def refuse_what_cannot_run(vllm_config: Any) -> None:
    """Refuse what vLLM's CPU build takes and then fails at, half started or at the first request (0.29 to 0.32).

    Raises:
        ConfigError: Ranks are to be Ray actors, for which it has no name of its resource; or there are to be pipeline
            ranks without compilation, and the buffers between them are made while the model warms up for that.
    """
    from . import _vllm

    if not _vllm.on_cpu():
        return
    parallel = vllm_config.parallel_config
    if parallel.distributed_executor_backend == "ray":
        raise ConfigError(
            "vLLM's CPU build cannot place its ranks with Ray; leave distributed_executor_backend out",
            param="distributed_executor_backend",
        )
    if parallel.pipeline_parallel_size > 1 and not _vllm.compiles(vllm_config):
        raise ConfigError(
            "vLLM's CPU build runs pipeline ranks only where it compiles the model; leave out enforce_eager and LoRA, "
            "or take tensor_parallel_size instead",
            param="pipeline_parallel_size",
        )


def launch(model: str, config: VLLMConfig, on_step: Callable[[int, Any], None], clock: StartupClock) -> Any:
    """Return a running AsyncLLM; ``on_step(rank, scheduler_stats)`` is called after each step.

    ``clock`` measures what it spends its time on.

    Raises:
        ConfigError, ModelNotFound: As of :func:`configure`.
        InternalError: The engine's processes failed to start.
    """
    args, vllm_config = configure(model, config, clock)
    refuse_what_cannot_run(vllm_config)
    from . import _vllm

    kv_events.make_folder(vllm_config.kv_events_config)
    try:
        with clock.stage("load model"), without_main(), without_interrupts():
            llm = _vllm.AsyncLLM.from_vllm_config(
                vllm_config,
                usage_context=_vllm.UsageContext.ENGINE_CONTEXT,
                stat_loggers=[_vllm.stat_logger_factory(on_step, only=args.disable_log_stats)],
                enable_log_requests=getattr(args, "enable_log_requests", False),
                disable_log_stats=args.disable_log_stats,
            )
        if args.disable_log_stats:
            _vllm.skip_request_stats(llm)
    except Exception as error:
        kv_events.remove_folder(vllm_config.kv_events_config)
        raise InternalError(f"vLLM could not start {model}: {error} (its log says why)", param="model") from error
    _ranks[llm] = ranks.ranks_of(processes(llm))
    return llm


def processes(llm: Any) -> list[Any]:
    """Return the processes that an AsyncLLM started by itself, as ``multiprocessing`` knows them."""
    resources = getattr(getattr(llm, "engine_core", None), "resources", None)
    found = list(getattr(getattr(resources, "engine_manager", None), "processes", ()))
    coordinator = getattr(getattr(resources, "coordinator", None), "proc", None)
    return found if coordinator is None else [*found, coordinator]


def shut_down(llm: Any) -> None:
    """End vLLM's processes and wait until they are gone. Blocking."""
    started = processes(llm)
    if handler := getattr(llm, "output_handler", None):
        handler.get_loop().call_soon_threadsafe(handler.cancel)  # else it reports the end as an error
    if "timeout" in inspect.signature(llm.shutdown).parameters:
        llm.shutdown(timeout=SHUTDOWN_TIMEOUT)
    else:
        llm.shutdown()
    for process in started:  # vLLM kills those that are slow, and does not wait for their end
        process.join(_REAP_SECONDS)
    ranks.end(_ranks.pop(llm, ()))
    kv_events.remove_folder(llm.vllm_config.kv_events_config)


def _startup_error(model: str, error: Exception) -> TrunnionError:
    text = str(error)
    missing = ("not a valid model identifier", "Repo id must", "local directory", "couldn't connect", "offline mode")
    named = {cls.__name__ for cls in type(error).__mro__}
    if named & {"RepositoryNotFoundError", "LocalEntryNotFoundError", "HFValidationError", "OfflineModeIsEnabled"}:
        return ModelNotFound(f"no model {model!r}: {text}", param="model")
    if isinstance(error, OSError) or any(phrase in text for phrase in missing):
        return ModelNotFound(f"model {model!r} cannot be read: {text}", param="model")
    if isinstance(error, ImportError):
        return InternalError(f"vLLM cannot be imported: {text}")
    if isinstance(error, (ValueError, TypeError, NotImplementedError, AssertionError)):
        return ConfigError(f"vLLM refuses the configuration: {text}", param="engine_kwargs")
    return InternalError(f"vLLM could not read the configuration of {model}: {text}")
