"""Bring a model up on a thread of its own: load it, allocate its cache, load its adapters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from trunnion import StartupStage, TokenizerRef
from trunnion.errors import AdapterNotFound, Cancelled, ConfigError, InvalidArgument

from ._llama import Context, LibraryError, Model, library
from .adapters import AdapterTable
from .config import LlamaCppConfig
from .errors import model_file, start_error
from .prompts import PromptReader
from .tokenizer import own_template, tokenizer_ref

_CELLS = 16384
_PAD = 256
_BYTES = {"f32": 4, "f16": 2, "q8_0": 34 / 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Hold what was brought up, and what it took."""

    model: Model
    context: Context
    reader: PromptReader
    tokenizer: TokenizerRef | None
    file: str
    length: int
    stages: tuple[StartupStage, ...]

    def close(self) -> None:
        """Free all of it."""
        self.context.close()
        self.model.close()


@dataclass(slots=True)
class _Clock:
    stages: list[StartupStage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.stages.append(StartupStage(name=name, seconds=time.perf_counter() - began))


def bring_up(name: str, config: LlamaCppConfig, adapters: AdapterTable, go_on: Callable[[], bool]) -> Loaded:
    """Load everything; fills the table of adapters. What was loaded before a failure is freed.

    Raises:
        ModelNotFound: There is no such file.
        ConfigError: llama.cpp refuses the model or the configuration, or an adapter cannot be loaded.
        Cancelled: ``go_on`` said no.
        InternalError: The library is missing, or failed.
    """
    clock = _Clock()
    try:
        file = model_file(name)
        with clock.stage("import library"):
            lib = library()
        if config.n_gpu_layers:
            _check_gpu(gpu=lib.llama_supports_gpu_offload())
        with clock.stage("load model"):
            model = Model(file, n_gpu_layers=config.n_gpu_layers, go_on=go_on)
        try:
            return _around(model, file, config, adapters, clock)
        except BaseException:
            model.close()
            raise
    except Exception as error:
        if not go_on():
            raise Cancelled("the engine was stopped while it started") from error
        raise start_error(name, error) from error


def _check_gpu(*, gpu: bool) -> None:
    if not gpu:
        message = "n_gpu_layers: this build of llama-cpp-python runs on CPUs alone; install one for your GPU"
        raise ConfigError(message, param="n_gpu_layers")


def _around(model: Model, file: str, config: LlamaCppConfig, adapters: AdapterTable, clock: _Clock) -> Loaded:
    if not model.decodes:
        raise ConfigError(f"{file} holds a model that does not generate text by itself", param="model")
    tokenizer = tokenizer_ref(model, file, config)
    reader = PromptReader(model, own_template(model, config))
    with clock.stage("load adapters"):
        for name, path in config.adapters.items():
            try:
                adapters.add(adapters.load(model, name, path))
            except (AdapterNotFound, InvalidArgument) as error:
                raise ConfigError(error.message, param=f"adapters.{name}") from error
    with clock.stage("allocate cache"):
        context = _context(model, config)
    room = min(model.context, context.n_ctx)
    length = config.max_model_len or room
    if length > room:
        context.close()
        what = "n_ctx" if room == context.n_ctx else "the model's context"
        raise ConfigError(f"max_model_len is {length}, more than the {room} tokens of {what}", param="max_model_len")
    return Loaded(
        model=model,
        context=context,
        reader=reader,
        tokenizer=tokenizer,
        file=file,
        length=length,
        stages=tuple(clock.stages),
    )


def _context(model: Model, config: LlamaCppConfig) -> Context:
    cells = config.n_ctx or min(_CELLS, model.context * config.n_seq_max)
    _check_memory(model, cells, config)
    try:
        return Context(
            model,
            n_ctx=-(-cells // _PAD) * _PAD,
            n_batch=config.n_batch,
            n_seq_max=config.n_seq_max,
            n_threads=config.n_threads or _threads(),
            cache_type=config.cache_type,
            further=config.engine_kwargs,
        )
    except LibraryError as error:
        message = f"llama.cpp cannot allocate a KV cache of {cells} tokens: {error}; lower n_ctx"
        raise ConfigError(message, param="n_ctx") from error


def _check_memory(model: Model, cells: int, config: LlamaCppConfig) -> None:
    """Refuse a cache larger than the memory that is free: the system would end the process, not the allocation."""
    arch = model.meta("general.architecture")
    names = ("block_count", "attention.head_count_kv", "attention.key_length", "attention.value_length")
    layers, heads, keys, values = (
        int(found) if (found := model.meta(f"{arch}.{n}") or "").isdigit() else 0 for n in names
    )
    need = cells * layers * heads * (keys + values) * _BYTES[config.cache_type]
    free = _free_memory()
    if config.n_gpu_layers == 0 and free is not None and need > free:
        gib = f"{need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        raise ConfigError(f"a KV cache of {cells} tokens takes {gib}; lower n_ctx", param="n_ctx")


def _free_memory() -> int | None:
    """Return the bytes of memory that are free; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _threads() -> int:
    """Return the threads that the environment grants: Ray and OpenMP speak through OMP_NUM_THREADS."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if told.isdigit() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
