"""Assemble a pipeline: hooks, request stages, the engine, stream stages. One per engine, on the engine's loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from ._flow import transduce, until
from .completion import Completion, collect
from .engine import Embedding, Embeds, Engine, EngineInfo, LoadReport, ReportsLoad
from .errors import Cancelled, ConfigError, InternalError, TrunnionError, UnsupportedFeature
from .events import GenerateEvent, Usage
from .explain import explain
from .hooks import HookChain, RequestSummary
from .planner import Plan
from .preparation import Prepared, Preparer
from .registry import Registry, get_registry
from .requests import GenerateRequest, MessagesPrompt, Prompt, TextPrompt
from .spec import EngineSpec, PipelineSpec

_OFFLOAD_CHARACTERS = 20_000
"""Prompts longer than this are templated and tokenized on a worker thread, so that the loop stays free."""


class Pipeline:
    """Run requests through stages and an engine.

    ``start()``, ``stop()`` and ``generate()`` belong to one event loop; ``prepare()`` may be called from any thread.
    """

    def __init__(self, spec: PipelineSpec | EngineSpec, *, registry: Registry | None = None) -> None:
        self.spec = spec if isinstance(spec, PipelineSpec) else PipelineSpec(engine=spec)
        self.registry = registry or get_registry(self.spec.policy)
        self.engine: Engine = self.registry.build_engine(self.spec.engine)
        self._info: EngineInfo | None = None
        self._preparer: Preparer | None = None
        self._hooks: HookChain | None = None

    @property
    def info(self) -> EngineInfo:
        """Return the started engine's description. Raises :class:`ConfigError` before ``start()``."""
        if self._info is None:
            raise ConfigError("the pipeline has not been started; use `async with trunnion.open_pipeline(spec)`")
        return self._info

    @property
    def _ready(self) -> Preparer:
        if self._preparer is None:
            raise ConfigError("the pipeline has not been started; use `async with trunnion.open_pipeline(spec)`")
        return self._preparer

    @property
    def has_request_hooks(self) -> bool:
        """Tell whether hooks look at each request; if not, batches may be prepared on their own."""
        return self._hooks is not None and self._hooks.per_request

    async def start(self) -> EngineInfo:
        """Start the engine, then build what depends on it. Stops the engine again if that fails."""
        hooks = self.registry.build_hooks()
        try:
            info = await self.engine.start()
            self._preparer = Preparer(self.spec, self.registry, info)
            if hooks:
                self._hooks = HookChain(hooks)
                await self._hooks.engine_started(info)
        except BaseException:
            await self.engine.stop()
            raise
        self._info = info
        return info

    async def stop(self, *, drain: float = 0.0) -> None:
        """Stop the engine. Idempotent."""
        await self.engine.stop(drain=drain)
        if self._hooks is not None and self._info is not None:
            hooks, self._hooks = self._hooks, None
            await hooks.engine_stopped(self._info)

    def load(self) -> LoadReport | None:
        """Return the engine's load, or None if it does not report any."""
        return self.engine.load() if isinstance(self.engine, ReportsLoad) else None

    def explain(self, request: GenerateRequest | None = None) -> str:
        """Describe the engine and the plan, for the given request or for each prompt kind."""
        return explain(self, request)

    def plan(self, request: GenerateRequest) -> Plan:
        """Return the plan of a request. Raises :class:`UnsupportedFeature` if it cannot be served."""
        return self._ready.plan(request)

    def prepare(self, requests: Sequence[GenerateRequest]) -> list[Prepared | TrunnionError]:
        """Plan, template and tokenize many requests at once, without hooks; see :meth:`Preparer.prepare`."""
        return self._ready.prepare(requests)

    def generate(self, request: GenerateRequest | Prepared) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the events of one request; see :meth:`trunnion.engine.Engine.generate` for the contract.

        Raises:
            TrunnionError: Any error of the tree; a foreign exception of a careless engine becomes InternalError.
        """
        hooks = self._hooks
        if hooks is not None and hooks.per_request and isinstance(request, GenerateRequest):
            return self._observed(request, hooks)
        return self._run(request)

    async def _observed(self, request: GenerateRequest, hooks: HookChain) -> AsyncGenerator[GenerateEvent, None]:
        began = time.perf_counter()
        usage: Usage | None = None
        failure: TrunnionError | None = None
        try:
            request = await hooks.before(request)
            async with aclosing(self._run(request)) as events:
                async for event in events:
                    if event.usage is not None:
                        usage = event.usage
                    yield event
        except TrunnionError as error:
            failure = error
            raise
        except (asyncio.CancelledError, GeneratorExit):
            failure = Cancelled("the caller gave the request up")
            raise
        finally:
            seconds = time.perf_counter() - began
            await hooks.after(RequestSummary(request=request, usage=usage, seconds=seconds, error=failure))

    async def _run(self, request: GenerateRequest | Prepared) -> AsyncGenerator[GenerateEvent, None]:
        prepared = request if isinstance(request, Prepared) else await self._prepare_one(request)
        events = self.engine.generate(prepared.request)
        if prepared.request.deadline is not None:
            events = until(events, prepared.request.deadline)
        if prepared.transducers:
            events = transduce(events, prepared)
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except (TrunnionError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            name = type(error).__name__
            raise InternalError(
                f"engine {self.info.engine!r} raised {name}, not an error of trunnion.errors"
            ) from error

    async def _prepare_one(self, request: GenerateRequest) -> Prepared:
        if _characters(request.prompt) > _OFFLOAD_CHARACTERS:
            result = (await asyncio.to_thread(self.prepare, [request]))[0]
        else:
            result = self.prepare([request])[0]
        if isinstance(result, TrunnionError):
            raise result
        return result

    async def complete(self, request: GenerateRequest | Prepared) -> Completion:
        """Run one request and return everything it produced."""
        return await collect(self.generate(request))

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Embed prompts. Raises :class:`UnsupportedFeature` if the engine or its model cannot."""
        info = self.info
        if "embeds/1" not in info.capabilities.protocols or not isinstance(self.engine, Embeds):
            raise UnsupportedFeature(
                f"engine {info.engine!r} with model {info.model!r} makes no embeddings; serve an embedding model",
                param="model",
            )
        return await self.engine.embed(prompts, dimensions=dimensions, adapter=adapter)


def _characters(prompt: Prompt) -> int:
    """Return the rough number of characters to be processed; nothing is validated here."""
    if isinstance(prompt, TextPrompt):
        return len(prompt.text)
    if isinstance(prompt, MessagesPrompt):
        return sum(len(m.get("content") or "") for m in prompt.messages if isinstance(m, dict))
    return 0


@asynccontextmanager
async def open_pipeline(
    spec: PipelineSpec | EngineSpec, *, registry: Registry | None = None, drain: float = 0.0
) -> AsyncIterator[Pipeline]:
    """Start a pipeline, and stop it at the end of the block.

    Args:
        spec: What to build; make an :class:`EngineSpec` with :func:`trunnion.engine_spec`.
        registry: Where plugins are looked up; this process's by default.
        drain: Seconds granted to requests in flight when the block ends.
    """
    pipeline = Pipeline(spec, registry=registry)
    try:
        await pipeline.start()
        yield pipeline
    finally:
        await pipeline.stop(drain=drain)
