"""Run one model with vLLM's AsyncLLM, in the event loop that awaited ``start()``."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Final

from trunnion.engine import AdapterRef, Embedding, EngineInfo, LoadReport
from trunnion.errors import Cancelled, EngineDead, InternalError, Overloaded, UnsupportedFeature
from trunnion.events import GenerateEvent
from trunnion.requests import GenerateRequest, Prompt, TextPrompt, TokensPrompt

from .adapters import AdapterTable
from .config import VLLMConfig
from .errors import MAPPED
from .events import EventConverter
from .launch import launch, shut_down
from .limits import context_overflow
from .load import LoadMeter

if TYPE_CHECKING:
    from .sampling import SamplingConverter

_SHORT_TEXT: Final = 4096
"""Characters up to which text is tokenized in the event loop; more goes to a thread."""
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
        self._adapters = AdapterTable()
        self._meter = LoadMeter(capacity=0)
        self._llm: Any = None
        self._info: EngineInfo | None = None
        self._sampling: SamplingConverter | None = None
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
            llm = await self._launch()
            try:
                self._info = await self._set_up(llm)
            except BaseException:
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

    async def _launch(self) -> Any:
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(None, launch, self._model, self._config, self._meter.on_step)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: whatever it brings up later is shut down at once.
            loading.add_done_callback(_shut_down_late)
            raise

    async def _set_up(self, llm: Any) -> EngineInfo:
        from . import _vllm
        from .describe import capacity, describe
        from .sampling import SamplingConverter

        vllm_config = llm.vllm_config
        model_config = vllm_config.model_config
        with MAPPED:
            tasks = tuple(await llm.get_supported_tasks())
            if vllm_config.lora_config is not None and _vllm.on_cpu():
                self._adapters.limit = int(vllm_config.lora_config.max_loras) - 1  # see with_spare_slot
            for name, path in self._config.adapters.items():
                adapter = self._adapters.make(name, path)
                await llm.add_lora(adapter)
                self._adapters.add(name, adapter)
        self._sampling = SamplingConverter(model_config.get_diff_sampling_param())
        self._context = int(model_config.max_model_len)
        self._tracing = vllm_config.observability_config.otlp_traces_endpoint is not None
        self._meter.capacity = capacity(vllm_config)
        return describe(self._model, vllm_config, tasks, self._adapters.names)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield one event per engine step; with delivery "final" a single one.

        Raises:
            ContextOverflow: The prompt and the tokens asked for exceed the context.
            AdapterNotFound: No such adapter is loaded.
            InvalidArgument, UnsupportedFeature: vLLM refuses a field; ``param`` names it where that is known.
            Cancelled: The engine was stopped.
            EngineDead: The engine's process died.
        """
        llm, meter = self._running(), self._meter
        events = EventConverter(request)
        n = request.sampling.n
        collector: Any = None
        finished = False
        meter.in_flight += n
        try:
            with MAPPED:
                collector = await self._submit(llm, request)
            while not finished:
                with MAPPED:
                    output = collector.get_nowait() or await collector.get()
                    event = events.convert(output)
                if output.finished:
                    finished = True
                    meter.in_flight -= n
                yield event
        except asyncio.CancelledError:
            if collector is None:  # between vLLM's taking the request and our knowing of it
                await self._abort(llm, request.request_id, internal=False)
            raise
        finally:
            if not finished:
                meter.in_flight -= n
                if collector is not None:
                    await self._abort(llm, collector.request_id, internal=True)

    async def _submit(self, llm: Any, request: GenerateRequest) -> Any:
        """Hand the request to vLLM and return the collector of its outputs."""
        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": await self._token_ids(llm, request.prompt)}
        if request.cache_salt is not None:
            prompt["cache_salt"] = request.cache_salt
        self._check_context(len(prompt["prompt_token_ids"]), request.sampling.max_tokens)
        assert self._sampling is not None  # set by start()
        return await llm.add_request(
            request.request_id,
            prompt,
            self._sampling.convert(request),
            lora_request=None if request.adapter is None else self._adapters.get(request.adapter),
            trace_headers=request.trace if self._tracing else None,
            priority=request.priority,
        )

    async def _token_ids(self, llm: Any, prompt: Prompt) -> list[int]:
        if isinstance(prompt, TokensPrompt):
            ids = prompt.token_ids
            return ids if type(ids) is list else list(ids)
        if isinstance(prompt, TextPrompt):
            tokenizer = llm.get_tokenizer()
            encode = functools.partial(tokenizer.encode, prompt.text, add_special_tokens=prompt.add_special_tokens)
            if len(prompt.text) < _SHORT_TEXT:
                return list(encode())
            return list(await asyncio.to_thread(encode))
        raise UnsupportedFeature(
            "the vLLM engine takes token ids or text; messages go through the template stage", param="messages"
        )

    def _check_context(self, prompt_tokens: int, max_tokens: int | None) -> None:
        """Refuse what does not fit, as OpenAI's API and vLLM's own server do. Raises :class:`ContextOverflow`."""
        wanted = 1 if max_tokens is None else max_tokens
        if prompt_tokens + wanted > self._context:
            raise context_overflow(prompt_tokens, max_tokens, self._context)

    async def _abort(self, llm: Any, request_id: str, *, internal: bool) -> None:
        with contextlib.suppress(Exception):  # a dead engine has nothing left to abort
            await llm.abort(request_id, internal=internal)

    def _running(self) -> Any:
        self._refuse_stopped()
        if self._llm is None:
            raise InternalError("the vLLM engine was not started; await start() first")
        return self._llm

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
            deadline = time.monotonic() + drain
            while self._meter.in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - a rare, short wait
                await asyncio.sleep(_POLL)
            self._llm = None
            with contextlib.suppress(Exception):  # a dead engine has nothing left to abort
                await llm.abort(list(llm.output_processor.request_states), internal=True)
            await asyncio.to_thread(shut_down, llm)

    def load(self) -> LoadReport:
        """Return the load as of now, without blocking."""
        return self._meter.report(self._adapters.names)

    async def check_health(self) -> None:
        """Return if vLLM's processes live. Raises :class:`EngineDead` otherwise."""
        llm = self._running()
        with MAPPED:
            await llm.check_health()

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Load a LoRA adapter; idempotent for the same path, another path replaces it.

        Raises:
            Overloaded: Every slot is taken (CPU builds; elsewhere vLLM swaps adapters in and out).
        """
        llm, held = self._running(), self._adapters.find(adapter.name)
        request = self._adapters.make(adapter.name, adapter.path)
        if held is not None and held.lora_path == request.lora_path:
            return
        if held is not None and self._adapters.full:  # its slot is needed for the one that replaces it
            await self.unload_adapter(adapter.name)
            held = None
        if held is None and self._adapters.full:
            names = ", ".join(self._adapters.names)
            raise Overloaded(f"all adapter slots are taken ({names}); unload one, or raise max_loras", retryable=False)
        with MAPPED:
            await llm.add_lora(request)
            self._adapters.add(adapter.name, request)
            if held is not None:
                await llm.remove_lora(held.lora_int_id)

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter. Raises :class:`AdapterNotFound`."""
        llm, request = self._running(), self._adapters.remove(name)
        with MAPPED:
            await llm.remove_lora(request.lora_int_id)

    async def list_adapters(self) -> list[AdapterRef]:
        """Return the loaded adapters."""
        return [AdapterRef(name=name, path=request.lora_path) for name, request in self._adapters.items()]

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order; needs a model that embeds (``runner="pooling"``)."""
        from .embedding import embed_one

        llm = self._running()
        lora = None if adapter is None else self._adapters.get(adapter)
        ids = [await self._token_ids(llm, prompt) for prompt in prompts]
        tasks = [asyncio.create_task(embed_one(llm, one, dimensions, lora, self._context)) for one in ids]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # where one failed, the others are given up
                task.cancel()
