"""Run one model with vLLM's AsyncLLM, in the event loop that awaited ``start()``."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from trunnion.engine import AdapterRef, Classification, Embedding, EngineInfo, LoadReport, Score
from trunnion.errors import Cancelled, EngineDead, InternalError, UnsupportedFeature
from trunnion.events import GenerateEvent
from trunnion.requests import GenerateRequest, Prompt, TextPrompt
from trunnion.sources import local_adapter
from trunnion.startup import StartupClock

from . import kv_events
from .adapter_slots import AdapterSlots
from .config import VLLMConfig
from .errors import MAPPED
from .events import EventConverter
from .launch import launch, shut_down
from .load import LoadMeter
from .prompts import PromptMaker
from .sleeping import Sleeper

if TYPE_CHECKING:
    from .pooling import Abilities
    from .sampling import SamplingConverter

T = TypeVar("T")
_POLL: Final = 0.01
"""Seconds between looks at what is still in flight while draining."""


def _shut_down_late(loading: asyncio.Future[Any]) -> None:
    if loading.exception() is None:
        threading.Thread(target=shut_down, args=(loading.result(),), name="trunnion-vllm-shutdown").start()


class VLLMEngine:
    """Mount vLLM in process. vLLM is imported by ``start()``, not before.

    The hot path is vLLM's own queue: a request is handed over as token ids, without vLLM's preprocessing thread,
    and its outputs are taken from the collector that ``AsyncLLM.generate`` itself would read.
    """

    def __init__(self, model: str, config: VLLMConfig | None = None) -> None:
        """Keep what to start; nothing is loaded."""
        self._model = model
        self._config = VLLMConfig() if config is None else config
        self._adapters = AdapterSlots()
        self._sleeper = Sleeper()
        self._meter = LoadMeter(capacity=0)
        self._llm: Any = None
        self._info: EngineInfo | None = None
        self._sampling: SamplingConverter | None = None
        self._prompts: PromptMaker | None = None
        self._able: Abilities
        self._context = 0
        self._tracing = False
        self._stopping = False
        self._lock = asyncio.Lock()

    async def start(self) -> EngineInfo:
        """Load the model, on a thread of its own, and return when ready to serve. A second call returns the same.

        Raises:
            ConfigError: vLLM refuses the configuration, or an adapter is not there.
            ModelNotFound: There is no such model.
            InternalError: vLLM's processes failed to start.
            Cancelled: ``stop()`` was called meanwhile.
        """
        async with self._lock:
            if self._info is not None and not self._stopping:
                return self._info
            self._refuse_stopped()
            clock = StartupClock()
            llm = await self._launch(clock)
            try:
                with clock.stage("set up"):
                    info = await self._set_up(llm)
                self._info = replace(info, startup=clock.startup().stages)
            except BaseException:
                await self._adapters.close()
                await asyncio.to_thread(shut_down, llm)
                raise
            self._llm = llm
        if self._stopping:
            await self.stop()
            raise Cancelled("the engine was stopped while it started")
        if self._config.gc_freeze:
            gc.collect()
            gc.freeze()
            atexit.register(gc.unfreeze)  # else what is frozen is never freed, and nanobind calls it leaked at exit
        return self._info

    async def _launch(self, clock: StartupClock) -> Any:
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(None, launch, self._model, self._config, self._meter.on_step, clock)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: whatever it brings up later is shut down at once.
            loading.add_done_callback(_shut_down_late)
            raise

    async def _set_up(self, llm: Any) -> EngineInfo:
        from . import _vllm
        from .describe import capacity, describe
        from .media import modalities
        from .pooling import abilities
        from .sampling import SamplingConverter

        vllm_config = llm.vllm_config
        model_config = vllm_config.model_config
        lora = vllm_config.lora_config
        # See with_spare_slot; elsewhere vLLM swaps adapters in and out.
        self._adapters.open(llm, limit=int(lora.max_loras) - 1 if lora is not None and _vllm.on_cpu() else None)
        for name, path in self._config.adapters.items():
            await self._adapters.load(name, path)
        with MAPPED:
            tasks = tuple(await llm.get_supported_tasks())
            media = modalities(llm)
        self._sampling = SamplingConverter(
            model_config.get_diff_sampling_param(), vocabulary=model_config.get_vocab_size()
        )
        self._able = abilities(tasks, model_config)
        self._context = int(model_config.max_model_len)
        self._prompts = PromptMaker(llm, self._context)
        self._tracing = vllm_config.observability_config.otlp_traces_endpoint is not None
        self._meter.capacity = capacity(vllm_config)
        return describe(self._model, vllm_config, tasks, self._adapters.names, media)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield one event per engine step; with delivery "final" a single one.

        Raises:
            ContextOverflow: The prompt and the tokens asked for exceed the context.
            AdapterNotFound: No such adapter is loaded.
            InvalidArgument, UnsupportedFeature: vLLM refuses a field; ``param`` names it where that is known.
            Transient: The engine sleeps.
            Cancelled: The engine was stopped.
            EngineDead: The engine's process died.
        """
        llm, meter = self._running(), self._meter
        events = EventConverter(request)
        n = request.sampling.n
        slot = None if request.adapter is None else self._adapters.lease(request.adapter)
        collector: Any = None
        finished = False
        meter.in_flight += n
        try:
            with MAPPED:
                collector = await self._submit(llm, request, None if slot is None else slot.request)
            while not finished:
                with MAPPED:
                    output = collector.get_nowait() or await collector.get()
                    event = events.convert(output)
                if output.finished:
                    finished = True
                    meter.in_flight -= n
                    if slot is not None:
                        slot.release()
                yield event
        except asyncio.CancelledError:
            if collector is None:  # between vLLM's taking the request and our knowing of it
                await self._abort(llm, request.request_id, internal=False)
            raise
        finally:
            if not finished:
                meter.in_flight -= n
                try:
                    if collector is not None:
                        await self._abort(llm, collector.request_id, internal=True)
                finally:
                    if slot is not None:
                        slot.release()

    async def _submit(self, llm: Any, request: GenerateRequest, lora: Any) -> Any:
        """Hand the request to vLLM and return the collector of its outputs."""
        assert self._sampling is not None  # set by start()
        assert self._prompts is not None
        return await llm.add_request(
            request.request_id,
            await self._prompts.make(request),
            self._sampling.convert(request),
            lora_request=lora,
            trace_headers=request.trace if self._tracing else None,
            priority=request.priority,
        )

    async def _abort(self, llm: Any, request_id: str, *, internal: bool) -> None:
        with contextlib.suppress(Exception):  # a dead engine has nothing left to abort
            await llm.abort(request_id, internal=internal)

    def _started(self) -> Any:
        self._refuse_stopped()
        if self._llm is None:
            raise InternalError("the vLLM engine was not started; await start() first")
        return self._llm

    def _running(self) -> Any:
        llm = self._started()
        self._sleeper.refuse_asleep()
        return llm

    def _refuse_stopped(self) -> None:
        if self._stopping:
            raise EngineDead("the vLLM engine was stopped; build a new one from its spec")

    async def stop(self, *, drain: float = 0.0) -> None:
        """Stop, after at most ``drain`` seconds for requests in flight; those left raise :class:`Cancelled`.

        Idempotent, safe before ``start()``. When it returns, vLLM's processes are gone.
        """
        self._stopping = True
        async with self._lock:
            llm = self._llm
            if llm is None:
                return
            await self._drained(time.monotonic() + drain)
            self._llm = None
            await self._adapters.close()
            with contextlib.suppress(Exception):  # a dead engine has nothing left to abort
                await llm.abort(list(llm.output_processor.request_states), internal=True)
            await asyncio.to_thread(shut_down, llm)

    async def _drained(self, deadline: float = float("inf")) -> None:
        while self._meter.in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - a rare, short wait
            await asyncio.sleep(_POLL)

    def load(self) -> LoadReport:
        """Return the load as of now, without blocking."""
        return self._meter.report(self._adapters.names)

    async def check_health(self) -> None:
        """Return if vLLM's processes live, asleep or not. Raises :class:`EngineDead` otherwise."""
        llm = self._started()
        with MAPPED:
            await llm.check_health()

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Load a LoRA adapter, while others generate; idempotent for the same path. A URI is fetched first.

        Another path replaces it: requests in flight end on the adapter they began with, later ones get the new one.
        Where no slot is left for both, the name is unknown until the former have ended.

        Raises:
            AdapterNotFound: There is no adapter at the path.
            Overloaded: Every slot is taken (CPU builds; elsewhere vLLM swaps adapters in and out).
        """
        self._refuse_without_lora(self._running())
        adapter = await local_adapter(adapter)
        await self._adapters.load(adapter.name, adapter.path)

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter: refused to new requests at once, gone when the requests in flight on it have ended.

        Raises :class:`AdapterNotFound`.
        """
        self._running()
        await self._adapters.unload(name)

    async def list_adapters(self) -> list[AdapterRef]:
        """Return the loaded adapters."""
        return self._adapters.refs()

    @staticmethod
    def _refuse_without_lora(llm: Any) -> None:
        if llm.vllm_config.lora_config is None:
            raise UnsupportedFeature(
                'this engine takes no adapters; start it with adapters={...} or engine_kwargs={"enable_lora": true}',
                param="adapter",
            )

    async def sleep(self, *, level: int = 1) -> None:
        """Give the GPU's memory back once the requests in flight have ended; new ones are refused at once.

        Raises:
            UnsupportedFeature: The engine was started without ``enable_sleep_mode``.
            InvalidArgument: There is no such level.
        """

        async def drained() -> None:
            await self._drained()
            self._refuse_stopped()

        await self._sleeper.sleep(self._started(), level, drained)

    async def wake(self) -> None:
        """Bring the weights back, and take requests again."""
        await self._sleeper.wake(self._started(), self._adapters.load_again)

    async def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; False where requests in flight hold some, and then none is forgotten."""
        llm = self._running()
        with MAPPED:
            return bool(await llm.reset_prefix_cache())

    async def kv_events(self) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the KV events since the start, as far as vLLM still holds them, then each as it happens.

        Ends when the engine is stopped. ``seq`` is the number of vLLM's own batch.

        Raises:
            UnsupportedFeature: The engine was started without ``kv_events``.
            EngineDead: The engine's process died.
        """
        llm = self._started()
        if not kv_events.can_follow(llm.vllm_config):
            raise UnsupportedFeature(f"this engine emits no KV events: {kv_events.WHY_NOT}", param="kv_events")
        config, ranks = llm.vllm_config.kv_events_config, llm.vllm_config.parallel_config.data_parallel_size
        from . import _vllm

        reader = kv_events.KVEventReader(
            config,
            ranks,
            decode=_vllm.kv_event_decoder(),
            alive=lambda: not llm.errored,
            adapter_name=self._adapters.public_name,
        )
        async with contextlib.aclosing(reader.read(lambda: self._stopping)) as events:
            async for event in events:
                yield event

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order; needs a model that embeds (``runner="pooling"``)."""
        from .pooling import embed_one

        llm, prompts_of = self._running(), self._prompts
        assert prompts_of is not None  # set by start()
        slot = None if adapter is None else self._adapters.lease(adapter)
        lora = None if slot is None else slot.request

        async def one(prompt: Prompt) -> Embedding:
            return await embed_one(llm, await prompts_of.token_ids(prompt), dimensions, lora, self._context)

        try:
            return await self._side_by_side([one(prompt) for prompt in prompts])
        finally:
            if slot is not None:
                slot.release()

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order: a cross-encoder's, or the cosine of an embedding model's vectors.

        Raises:
            UnsupportedFeature: The model does neither.
            ContextOverflow: A text, for a cross-encoder with the query, is longer than the model takes.
        """
        from .pooling import cosines, score_one

        llm, prompts_of = self._running(), self._prompts
        assert prompts_of is not None  # set by start()
        if self._able.is_cross_encoder:

            async def one(text: str) -> Score:
                return await score_one(llm, *await prompts_of.pair(query, text), self._context)

            return await self._side_by_side([one(text) for text in texts])
        if not self._able.embeds:
            raise UnsupportedFeature(f"{self._model} is no model to score with", param="model")
        if not texts:
            return []
        asked, *found = await self.embed([TextPrompt(text=text) for text in (query, *texts)])
        return cosines(asked, found)

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probability of each label, per prompt, in order; needs a sequence classification model.

        Raises:
            UnsupportedFeature: The model is none, or a cross-encoder, which scores.
            ContextOverflow: A prompt is longer than the model takes.
        """
        from .pooling import classify_one

        llm, prompts_of = self._running(), self._prompts
        assert prompts_of is not None  # set by start()
        if not self._able.classifies:
            raise UnsupportedFeature(f"{self._model} is no model to classify with", param="model")

        async def one(prompt: Prompt) -> Classification:
            return await classify_one(llm, await prompts_of.token_ids(prompt), self._able.labels, self._context)

        return await self._side_by_side([one(prompt) for prompt in prompts])

    async def _side_by_side(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Run prompts that make no text; where one fails, the others are given up."""
        self._meter.in_flight += len(works)
        tasks = [asyncio.create_task(work) for work in works]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._meter.in_flight -= len(works)
