"""Run one model with transformers' continuous batching, for the event loop that awaited ``start()``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from trunnion.capabilities import check_features, used_features
from trunnion.engine import AdapterRef, Classification, Embedding, EngineInfo, LoadReport, Score
from trunnion.errors import Cancelled, ConfigError, EngineDead, InternalError, InvalidArgument, UnsupportedFeature
from trunnion.events import GenerateEvent
from trunnion.plugin_tools import context_overflow
from trunnion.requests import GenerateRequest, Prompt, TextPrompt
from trunnion.sources import local_adapter
from trunnion.startup import StartupClock

from .adapters import Adapter, AdapterTable
from .bring_up import bring_up
from .config import TransformersConfig
from .describe import describe
from .encoder import Tokens
from .load import LoadMeter
from .loading import Loaded
from .plan import Defaults, make_plan
from .prompts import PromptReader
from .stream import Stream

if TYPE_CHECKING:
    from .bring_up import Runner
    from .generation import Generation


def _stop_late(loading: asyncio.Future[tuple[Loaded, Runner]]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        threading.Thread(target=loading.result()[1].stop, name="trunnion-transformers-stop").start()


class TransformersEngine:
    """Mount transformers in process. torch and transformers are imported by ``start()``, not before.

    The library's generation thread runs the model; it tells the event loop of each step with one call. Encoders
    run on a thread of their own instead.
    """

    def __init__(self, model: str, config: TransformersConfig | None = None) -> None:
        """Keep what to start; nothing is loaded."""
        self._model = model
        self._config = TransformersConfig() if config is None else config
        self._adapters = AdapterTable()
        self._meter = LoadMeter()
        self._info: EngineInfo | None = None
        self._defaults = Defaults()
        self._eos: tuple[int, ...] = ()
        self._runner: Runner | None = None
        self._prompts = PromptReader(None, 0)
        self._context = 0
        self._stopping = False
        self._lock = asyncio.Lock()
        self._adapter_lock = asyncio.Lock()

    async def start(self) -> EngineInfo:
        """Load the model, on a thread of its own, and return when ready to serve. A second call returns the same.

        Raises:
            ConfigError: The library refuses the model or the configuration, or an adapter is not there.
            ModelNotFound: There is no such model.
            InternalError: A library is missing, or failed.
            Cancelled: ``stop()`` was called meanwhile.
        """
        async with self._lock:
            if self._info is not None and not self._stopping:
                return self._info
            self._refuse_stopped()
            clock = StartupClock()
            loaded, runner = await self._bring_up(clock)
            try:
                self._info = replace(self._set_up(loaded, runner), startup=clock.startup().stages)
            except BaseException:
                await asyncio.to_thread(runner.stop)
                raise
            self._runner = runner
        if self._stopping:
            await self.stop()
            raise Cancelled("the engine was stopped while it started")
        if self._config.gc_freeze:
            gc.collect()
            gc.freeze()
        return self._info

    async def _bring_up(self, clock: StartupClock) -> tuple[Loaded, Runner]:
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(None, bring_up, self._model, self._config, self._adapters, clock)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_stop_late)  # a thread cannot be cancelled
            raise

    def _set_up(self, loaded: Loaded, runner: Runner) -> EngineInfo:
        self._prompts = PromptReader(loaded.tokenizer, int(loaded.model.get_input_embeddings().num_embeddings))
        self._meter.capacity = runner.max_requests
        self._defaults, self._eos = loaded.defaults, loaded.eos
        room = min(loaded.context, runner.room if runner.kind == "generate" else runner.context)
        self._context = self._config.max_model_len or room
        if self._context > room:
            what = "the model's context" if room == loaded.context else "the KV cache; raise num_blocks"
            message = f"max_model_len is {self._context}, more than the {room} tokens of {what}"
            raise ConfigError(message, param="max_model_len")
        if runner.kind == "generate":
            runner.open(asyncio.get_running_loop())
        return describe(self._model, loaded, runner, self._config, context=self._context, adapters=self._adapters.names)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield one event per engine step; with delivery "final" a single one.

        Raises:
            ContextOverflow: The prompt and the tokens asked for exceed the context.
            AdapterNotFound: No such adapter is loaded.
            InvalidArgument, UnsupportedFeature: A field cannot be honoured; ``param`` names it.
            Cancelled: The engine was stopped.
            EngineDead: The engine's thread died.
        """
        self._generating()
        self._check(request)
        ids = await self._prompts.read(request.prompt)
        sampling = request.sampling
        if len(ids) + (sampling.max_tokens or 1) > self._context:
            raise context_overflow(len(ids), sampling.max_tokens, self._context)
        generation = self._generating()  # tokenizing may have taken a while
        adapter = None if request.adapter is None else self._adapters.get(request.adapter)
        key = None if adapter is None else adapter.key
        plans = [
            make_plan(request, self._defaults, choice=choice, adapter=key, prompt_tokens=len(ids), eos=self._eos)
            for choice in range(sampling.n)
        ]
        stream = Stream(plans, name=self._prompts.text_of)
        names: list[str] = []
        held = self._hold(adapter, sampling.n)
        try:
            names = generation.submit(stream, ids, sampling.max_tokens or self._context - len(ids))
            while held:
                event = await stream.next()
                if event.usage is not None:
                    held = self._release(adapter, sampling.n)
                yield event
        finally:
            if held:
                generation.cancel(names)
                self._release(adapter, sampling.n)

    def _hold(self, adapter: Adapter | None, sequences: int) -> bool:
        self._meter.add(sequences)
        if adapter is not None:
            adapter.users += 1
        return True

    def _release(self, adapter: Adapter | None, sequences: int) -> bool:
        self._meter.remove(sequences)
        if adapter is not None:
            adapter.release()
        return False

    def _check(self, request: GenerateRequest) -> None:
        """Refuse what the pipeline would refuse, for those who use the engine without one."""
        assert self._info is not None  # set by start()
        check_features(used_features(request), self._info.capabilities, engine="transformers", supplied=frozenset())
        if request.extra and (extra := request.extra.get("transformers")):
            name = next(iter(extra))
            raise InvalidArgument(f"extra['transformers'] has no field {name!r}", param=f"extra.transformers.{name}")

    def _started(self) -> Runner:
        self._refuse_stopped()
        if self._runner is None:
            raise InternalError("the transformers engine was not started; await start() first")
        return self._runner

    def _generating(self) -> Generation:
        runner = self._started()
        if runner.kind != "generate":
            raise UnsupportedFeature(f"{self._model} {runner.does}, it does not generate", param="model")
        if dead := runner.dead:
            raise dead
        return runner

    def _refuse_stopped(self) -> None:
        if self._stopping:
            raise EngineDead("the transformers engine was stopped; build a new one from its spec")

    async def stop(self, *, drain: float = 0.0) -> None:
        """Stop, after at most ``drain`` seconds for requests in flight; those left raise :class:`Cancelled`.

        Idempotent, safe before ``start()``. When it returns, the engine's thread is gone and the model is freed.
        """
        self._stopping = True
        async with self._lock:
            runner = self._runner
            if runner is None:
                return
            await self._meter.drained(drain)
            self._runner, self._prompts = None, PromptReader(None, 0)
            if runner.kind == "generate":
                runner.fail_all(lambda: Cancelled("the engine was stopped"))
            await asyncio.to_thread(runner.stop)
            if self._config.gc_freeze:
                gc.unfreeze()

    def load(self) -> LoadReport:
        """Return the load as of now, without blocking."""
        runner = self._runner
        step = (self._meter.capacity, 0.0)
        if runner is not None and runner.kind == "generate":
            step = runner.snapshot()
        return self._meter.report(step, self._adapters.names)

    async def check_health(self) -> None:
        """Return if the engine's thread lives. Raises :class:`EngineDead` otherwise."""
        runner = self._started()
        if runner.kind == "generate" and (runner.dead or not runner.alive):
            raise runner.dead or EngineDead("the transformers engine's thread ended; build a new one from its spec")

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Load a LoRA adapter between two steps; idempotent for the same path, another path replaces it.

        A URI is fetched first.

        Raises:
            AdapterNotFound: The path holds no adapter.
            InvalidArgument: The adapter does not fit the model.
        """
        await _to_the_end(self._load_adapter(await local_adapter(adapter)))

    async def _load_adapter(self, ref: AdapterRef) -> None:
        generation = self._generating()
        async with self._adapter_lock:
            adapter, held = self._adapters.make(ref.name, ref.path), self._adapters.find(ref.name)
            if held is not None and held.path == adapter.path:
                return
            await generation.call(partial(generation.switch.load, adapter))
            self._adapters.add(adapter)
        if held is not None:
            await self._retire(generation, held)

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter, once the requests that use it have ended; new ones are refused from now on.

        Raises:
            AdapterNotFound: It is not loaded.
        """
        generation = self._generating()
        await _to_the_end(self._retire(generation, self._adapters.remove(name)))

    async def _retire(self, generation: Generation, adapter: Adapter) -> None:
        if adapter.users:
            gone = asyncio.get_running_loop().create_future()
            adapter.waiters.append(gone)
            await gone
        if self._stopping:
            return
        await generation.call(partial(generation.switch.unload, adapter.key))
        generation.turns.forget(adapter.key)

    async def list_adapters(self) -> list[AdapterRef]:
        """Return the loaded adapters."""
        return self._adapters.refs()

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order; needs a model that embeds.

        Raises:
            UnsupportedFeature: The model generates, or an adapter is named.
            ContextOverflow: A prompt is longer than the model takes.
            InvalidArgument: The vectors cannot have that many dimensions.
            Cancelled: The engine was stopped.
        """
        embedder = self._started()
        if embedder.kind != "embed":
            raise self._does_not("embed")
        if adapter is not None:
            raise UnsupportedFeature("adapters are for models that generate", param="adapter")
        embedder.check_dimensions(dimensions)
        inputs = self._fitting([Tokens(await self._prompts.read(prompt)) for prompt in prompts])
        async with self._encoding(len(inputs)):
            return await embedder.embed(inputs, dimensions)

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order: a cross-encoder's, or the cosine of an embedding model's vectors.

        Raises:
            UnsupportedFeature: The model does neither.
            ContextOverflow: A text, for a cross-encoder with the query, is longer than the model takes.
            Cancelled: The engine was stopped.
        """
        runner = self._started()
        if runner.kind == "embed":
            asked, *found = self._fitting(
                [Tokens(await self._prompts.read(TextPrompt(text=text))) for text in (query, *texts)]
            )
            async with self._encoding(len(texts)):
                return await runner.score(asked, found)
        if runner.kind != "classify" or not runner.scores:
            raise self._does_not("score")
        pairs = self._fitting([await self._prompts.pair(query, text) for text in texts])
        async with self._encoding(len(pairs)):
            return await runner.score(pairs)

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probability of each label, per prompt, in order; needs a sequence classification model.

        Raises:
            UnsupportedFeature: The model is none, or a cross-encoder, which scores.
            ContextOverflow: A prompt is longer than the model takes.
            Cancelled: The engine was stopped.
        """
        runner = self._started()
        if runner.kind != "classify" or runner.scores:
            raise self._does_not("classify")
        inputs = self._fitting([Tokens(await self._prompts.read(prompt)) for prompt in prompts])
        async with self._encoding(len(inputs)):
            return await runner.classify(inputs)

    def _does_not(self, verb: str) -> UnsupportedFeature:
        return UnsupportedFeature(f"{self._model} is no model to {verb} with", param="model")

    def _fitting(self, inputs: list[Tokens]) -> list[Tokens]:
        """Return the inputs. Raises :class:`ContextOverflow` if one is longer than the model takes."""
        if too_long := next((one for one in inputs if len(one.ids) > self._context), None):
            raise context_overflow(len(too_long.ids), None, self._context)
        return inputs

    @contextlib.asynccontextmanager
    async def _encoding(self, sequences: int) -> AsyncIterator[None]:
        """Count sequences as running; what a stop ends is :class:`Cancelled`."""
        self._meter.add(sequences)
        try:
            yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._stopping and task is not None and not task.cancelling():
                raise Cancelled("the engine was stopped") from error
            raise
        finally:
            self._meter.remove(sequences)


async def _to_the_end(change: Coroutine[Any, Any, None]) -> None:
    """Run a change of the model to its end, even if its caller is cancelled."""
    await asyncio.shield(asyncio.ensure_future(change))
