"""Run one GGUF model with llama.cpp, for the event loop that awaited ``start()``."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import AsyncGenerator, Coroutine
from importlib.metadata import version
from typing import Any

from trunnion import AdapterRef, EngineInfo, GenerateEvent, GenerateRequest, LoadReport, local_path
from trunnion.errors import Cancelled, ConfigError, EngineDead, InternalError, InvalidArgument
from trunnion.plugin_tools import context_overflow

from ._sampler import TokenSampler
from .adapters import Adapter, AdapterTable
from .bring_up import Loaded, bring_up
from .capabilities import capabilities
from .cells import Cells
from .choice import Choice
from .config import LlamaCppConfig
from .errors import map_error
from .grammar import to_gbnf
from .load import LoadMeter
from .plan import Defaults, make_plan
from .schedule import Schedule
from .stream import Stream
from .turns import Turns
from .worker import Worker


class LlamaCppEngine:
    """Mount llama.cpp in process. The library is imported by ``start()``, not before."""

    def __init__(self, model: str, config: LlamaCppConfig | None = None) -> None:
        """Keep what to start; nothing is loaded."""
        self._name = model
        self._config = config or LlamaCppConfig()
        self._adapters = AdapterTable()
        self._meter = LoadMeter()
        self._defaults = Defaults()
        self._info: EngineInfo | None = None
        self._loaded: Loaded | None = None
        self._worker: Worker | None = None
        self._schedule: Schedule | None = None
        self._random = random.Random(self._config.seed)  # noqa: S311 - seeds of draws, no secrets
        self._numbers = itertools.count()
        self._used = False
        self._stopping = threading.Event()
        self._lock = asyncio.Lock()
        self._adapter_lock = asyncio.Lock()

    async def start(self) -> EngineInfo:
        """Load the model on a thread of its own, and return when ready to serve. A second call returns the same.

        Raises:
            ModelNotFound: There is no such file.
            ConfigError: llama.cpp refuses the model or the configuration, or the engine was used before.
            InternalError: The library is missing, or failed.
            Cancelled: ``stop()`` was called meanwhile.
        """
        async with self._lock:
            if self._info is not None and not self._stopping.is_set():
                return self._info
            if self._used or self._stopping.is_set():
                raise ConfigError("this engine failed to start or was stopped; build a new one from its spec")
            self._used = True
            loaded = await self._bring_up()
            if self._stopping.is_set():
                await asyncio.to_thread(loaded.close)
                raise Cancelled("the engine was stopped while it started")
            self._open(loaded)
            self._info = self._describe(loaded)
            return self._info

    async def _bring_up(self) -> Loaded:
        loop = asyncio.get_running_loop()
        going = lambda: not self._stopping.is_set()  # noqa: E731 - a line is enough
        loading = loop.run_in_executor(None, bring_up, self._name, self._config, self._adapters, going)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            self._stopping.set()  # a thread cannot be cancelled; this one gives up by itself
            loading.add_done_callback(_close_late)
            raise

    def _open(self, loaded: Loaded) -> None:
        config, model, context = self._config, loaded.model, loaded.context
        self._defaults = Defaults.read(model.meta)
        keep = config.prefix_cache and model.forgets_parts
        cells = Cells(context, size=context.n_ctx, slots=config.n_seq_max, keep=keep)
        self._schedule = Schedule(cells, Turns(config.adapter_turn_steps), batch=context.n_batch)
        loop = asyncio.get_running_loop()
        self._loaded = loaded
        self._worker = Worker(model, context, self._schedule, adapter_handle=self._adapters.handle, loop=loop)

    def _describe(self, loaded: Loaded) -> EngineInfo:
        return EngineInfo(
            engine="llamacpp",
            model=self._name,
            context_length=loaded.length,
            tokenizer=loaded.tokenizer,
            concurrency=self._config.n_seq_max,
            capabilities=capabilities(tokenizer=loaded.tokenizer is not None),
            adapters=self._adapters.names,
            library=f"llama-cpp-python {version('llama-cpp-python')}",
            emits_text=loaded.tokenizer is None,
            details={
                "file": loaded.file,
                "description": loaded.model.meta("general.name") or "",
                "n_ctx": loaded.context.n_ctx,
                "n_batch": loaded.context.n_batch,
                "n_threads": loaded.context.n_threads,
                "default_temperature": self._defaults.temperature,
            },
            startup=loaded.stages,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield one event per engine step; with delivery "final" a single one.

        Raises:
            ContextOverflow: The prompt and the tokens asked for exceed the context.
            AdapterNotFound: No such adapter is loaded.
            InvalidArgument, UnsupportedFeature: A field cannot be honoured; ``param`` names it.
            Cancelled: The engine was stopped.
            EngineDead: The engine's thread died.
        """
        loaded, worker = self._running()
        try:
            prompt = await loaded.reader.read(request.prompt)
            self._check(request, loaded, len(prompt))
            adapter = None if request.adapter is None else self._adapters.get(request.adapter)
            grammar = None if request.output_format is None else to_gbnf(request.output_format)
            stream = Stream(
                choices=request.sampling.n,
                prompt_tokens=len(prompt),
                final=request.delivery == "final",
                name=lambda token: loaded.model.piece(token, special=True).decode("utf-8", "replace"),
            )
            choices = self._choices(request, loaded, stream, prompt=prompt, grammar=grammar, adapter=adapter)
        except Exception as error:
            raise map_error(error) from error
        self._hold(adapter, len(choices))
        ended = False
        try:
            worker.submit(choices)
            while not ended:
                event = await stream.next()
                if event.usage is not None:
                    ended = True
                    self._release(adapter, len(choices))
                yield event
        finally:
            if not ended:
                worker.give_up(choices)
                self._release(adapter, len(choices))

    def _check(self, request: GenerateRequest, loaded: Loaded, tokens: int) -> None:
        sampling = request.sampling
        if tokens + (sampling.max_tokens or 1) > loaded.length:
            raise context_overflow(tokens, sampling.max_tokens, loaded.length)
        if extra := (request.extra or {}).get("llamacpp"):
            name = next(iter(extra))
            raise InvalidArgument(f"extra['llamacpp'] has no field {name!r}", param=f"extra.llamacpp.{name}")

    def _choices(
        self,
        request: GenerateRequest,
        loaded: Loaded,
        stream: Stream,
        *,
        prompt: list[int],
        grammar: str | None,
        adapter: Adapter | None,
    ) -> list[Choice]:
        sampling, model = request.sampling, loaded.model
        seed, number = self._random.getrandbits(32), next(self._numbers)
        made: list[Choice] = []
        try:
            for index in range(sampling.n):
                plan = make_plan(
                    request,
                    self._defaults,
                    choice=index,
                    seed=seed,
                    max_tokens=sampling.max_tokens or loaded.length - len(prompt),
                    ends=model.ends,
                    vocabulary=model.size,
                    grammar=grammar,
                )
                choice = Choice(
                    stream=stream,
                    index=index,
                    prompt=prompt,
                    plan=plan,
                    sampler=TokenSampler(model, plan, prompt),
                    model=model,
                    with_text=request.detokenize and loaded.tokenizer is None,
                    final=request.delivery == "final",
                    key=None if adapter is None else adapter.key,
                    salt=request.cache_salt,
                    rank=(request.priority, number),
                )
                made.append(choice)
        except BaseException:
            for choice in made:
                choice.close()
            raise
        return made

    def _hold(self, adapter: Adapter | None, sequences: int) -> None:
        self._meter.add(sequences)
        if adapter is not None:
            adapter.users += 1

    def _release(self, adapter: Adapter | None, sequences: int) -> None:
        self._meter.remove(sequences)
        if adapter is not None:
            adapter.release()

    def _running(self) -> tuple[Loaded, Worker]:
        if self._stopping.is_set():
            raise EngineDead("the llama.cpp engine was stopped; build a new one from its spec")
        if self._loaded is None or self._worker is None:
            raise InternalError("the llama.cpp engine was not started; await start() first")
        if dead := self._worker.dead:
            raise dead
        return self._loaded, self._worker

    async def stop(self, *, drain: float = 0.0) -> None:
        """Stop, after at most ``drain`` seconds for requests in flight; those left raise :class:`Cancelled`.

        Idempotent, safe before ``start()``. When it returns, the engine's thread is gone and the model is freed.
        """
        self._stopping.set()
        async with self._lock:
            worker, loaded = self._worker, self._loaded
            if worker is None or loaded is None:
                return
            await self._meter.drained(drain)
            self._worker = self._loaded = self._schedule = None
            await asyncio.to_thread(worker.stop)
            await asyncio.to_thread(loaded.model.close)

    def load(self) -> LoadReport:
        """Return the load as of now, without blocking."""
        step = (0, 0, 0.0) if self._worker is None else self._worker.snapshot
        return self._meter.report(step, capacity=self._config.n_seq_max, adapters=self._adapters.names)

    async def check_health(self) -> None:
        """Return if the engine's thread lives. Raises :class:`EngineDead` otherwise."""
        self._running()

    async def reset_prefix_cache(self) -> bool:
        """Forget what ended sequences left in the cache; False, and nothing is forgotten, while any run."""
        _, worker = self._running()
        schedule = self._schedule
        if self._meter.in_flight or schedule is None:
            return False
        await worker.call(schedule.cells.drop)
        return True

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Load a LoRA adapter between two steps; idempotent for the same path, another path replaces it.

        Raises:
            AdapterNotFound: The path holds no adapter.
            InvalidArgument: The adapter does not fit the model.
        """
        path = adapter.path
        if "://" in path:
            path = await asyncio.to_thread(local_path, path)
        await _to_the_end(self._load_adapter(adapter.name, path))

    async def _load_adapter(self, name: str, path: str) -> None:
        loaded, worker = self._running()
        async with self._adapter_lock:
            held = self._adapters.find(name)
            if held is not None and held.path == path:
                return
            try:
                made = await worker.call(lambda: self._adapters.load(loaded.model, name, path))
            except Exception as error:
                raise map_error(error) from error
            self._adapters.add(made)
        if held is not None:
            await self._retire(held)

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter, once the requests that use it have ended; new ones are refused from now on.

        Raises:
            AdapterNotFound: It is not loaded.
        """
        self._running()
        await _to_the_end(self._retire(self._adapters.remove(name)))

    async def _retire(self, adapter: Adapter) -> None:
        await adapter.unused()
        schedule, loaded, worker = self._schedule, self._loaded, self._worker
        if schedule is None or loaded is None or worker is None:
            return  # it went with the model

        def free() -> None:
            loaded.context.use_adapter(None)
            schedule.cells.drop([adapter.key])
            schedule.turns.forget(adapter.key)
            self._adapters.free(loaded.model, adapter)

        await worker.call(free)

    async def list_adapters(self) -> list[AdapterRef]:
        """Return the loaded adapters."""
        return self._adapters.refs()


def _close_late(loading: asyncio.Future[Loaded]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        threading.Thread(target=loading.result().close, name="trunnion-llamacpp-close").start()


async def _to_the_end(change: Coroutine[Any, Any, None]) -> None:
    """Run a change of the adapters to its end, even if its caller is cancelled."""
    await asyncio.shield(asyncio.ensure_future(change))
