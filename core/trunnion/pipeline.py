"""Assemble a pipeline: hooks, request stages, the engine, stream stages. One per engine, on the engine's loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

from ._flow import transduce, until
from ._local_files import must_fetch, with_local_files
from ._media_gate import MediaGate
from ._pooling import Pooling
from .completion import Completion, collect
from .engine import Classification, Embedding, Engine, EngineInfo, LoadReport, ReportsLoad, Score, Transcription
from .errors import Cancelled, ConfigError, InternalError, TrunnionError
from .events import GenerateEvent, Usage
from .explain import explain
from .fetch import OnProgress
from .hooks import HookChain, RequestSummary
from .planner import Plan
from .pooling import PoolingAnswer, PoolingRequest
from .preparation import Prepared, Preparer
from .registry import Registry, get_registry
from .requests import GenerateRequest, MessagesPrompt, Prompt, TextPrompt, TokensPrompt
from .spec import EngineSpec, PipelineSpec
from .startup import Startup, StartupClock
from .timing import MARKS

logger = logging.getLogger("trunnion.pipeline")
_FIRST: Final = GenerateRequest(prompt=MessagesPrompt(messages=({"role": "user", "content": "Hello"},)))

_OFFLOAD_CHARACTERS = 20_000
"""Prompts longer than this are templated and tokenized on a worker thread, so that the loop stays free."""


class Pipeline:
    """Run requests through stages and an engine.

    ``start()``, ``stop()`` and ``generate()`` belong to one event loop; ``prepare()`` may be called from any thread.
    """

    def __init__(
        self,
        spec: PipelineSpec | EngineSpec,
        *,
        registry: Registry | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.spec = spec if isinstance(spec, PipelineSpec) else PipelineSpec(engine=spec)
        self.registry = registry or get_registry(self.spec.policy)
        self._clock = StartupClock()
        self._on_progress = on_progress
        self._stop_fetching = threading.Event()
        self._fetches = must_fetch(self.spec.engine, self.registry)
        self._engine: Engine | None = None if self._fetches else self._build(self.spec.engine)
        self._startup: Startup | None = None
        self._info: EngineInfo | None = None
        self._preparer: Preparer | None = None
        self._hooks: HookChain | None = None
        self._media: MediaGate | None = None
        self._used = False

    def _build(self, spec: EngineSpec) -> Engine:
        with self._clock.stage("import engine"):
            return self.registry.build_engine(spec)

    @property
    def engine(self) -> Engine:
        """Return the engine. Raises :class:`ConfigError` while its model is still to be fetched by ``start()``."""
        if self._engine is None:
            raise ConfigError(f"{self._engine_name} is built by start(), once its model was fetched")
        return self._engine

    @property
    def startup(self) -> Startup:
        """Return the stages of the start and how long each took. Raises :class:`ConfigError` before ``start()``."""
        if self._startup is None:
            raise ConfigError("the pipeline has not been started; use `async with trunnion.open_pipeline(spec)`")
        return self._startup

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
    def _gate(self) -> MediaGate:
        if self._media is None:
            raise ConfigError("the pipeline has not been started; use `async with trunnion.open_pipeline(spec)`")
        return self._media

    @property
    def has_request_hooks(self) -> bool:
        """Tell whether hooks look at each request; if not, batches may be prepared on their own."""
        return self._hooks is not None and self._hooks.per_request

    async def start(self) -> EngineInfo:
        """Fetch the model if need be, start the engine, then build what depends on it; stop it again if that fails.

        Raises:
            ConfigError: The pipeline was started or stopped before; it is used once, like its engine.
            ModelNotFound, DeadlineExceeded: The model is not there, or took too long to fetch.
            TrunnionError: What the engine refused with; a foreign exception becomes InternalError.
        """
        if self._used:
            raise ConfigError("this pipeline was started or stopped before; open a new one from its spec")
        self._used = True
        try:
            hooks = self.registry.build_hooks(self.spec.hooks)
            if self._fetches:
                self._engine = await self._fetch_and_build()
            with self._clock.stage("start engine"):
                info = await self.engine.start()
            if not info.capabilities.features:
                info = replace(info, capabilities=self.registry.engine(self.spec.engine.engine).capabilities)
            with self._clock.stage("stages"):
                self._preparer = Preparer(self.spec, self.registry, info)
                if info.capabilities.prompts[:1] != ("messages",):
                    # Template and tokenizer load with the first request they see; no user should wait for that. What
                    # is wrong with them, such as a model without a template, concerns the requests that need them.
                    await asyncio.to_thread(self._preparer.prepare_one, _FIRST)
            if hooks:
                self._hooks = HookChain(hooks, self.registry.hooks_origins())
                with self._clock.stage("hooks"):
                    await self._hooks.engine_started(info)
        except BaseException as error:
            await self._stop_after_failure()
            if isinstance(error, TrunnionError) or not isinstance(error, Exception):
                raise
            raise InternalError(
                f"engine {self.spec.engine.engine!r} did not start: {type(error).__name__}: {error}"
            ) from error
        self._media = MediaGate(self.spec.media, takes_urls=info.capabilities.media_urls)
        self._startup = self._clock.startup(start_engine=info.startup)
        logger.info("engine %r %s", self.spec.engine.engine, self._startup)
        self._info = info
        return info

    async def _fetch_and_build(self) -> Engine:
        with self._clock.stage("fetch model"):
            spec = await with_local_files(
                self.spec.engine, self.registry, on_progress=self._on_progress, stop=self._stop_fetching
            )
        return self._build(spec)

    async def _stop_after_failure(self) -> None:
        if self._engine is None:
            return
        try:
            await self._engine.stop()
        except Exception:  # the failure that led here says more
            logger.exception("engine %r failed to stop after it failed to start", self.spec.engine.engine)

    async def stop(self, *, drain: float = 0.0) -> None:
        """Stop the engine, after at most ``drain`` seconds for requests in flight. Idempotent; safe before start."""
        self._used = True
        self._stop_fetching.set()
        try:
            if self._engine is not None:
                await self._engine.stop(drain=drain)
        finally:
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
        prompt_tokens = completion_tokens = 0
        failure: TrunnionError | None = None
        try:
            request = await hooks.before(request)
            if isinstance(request.prompt, TokensPrompt):
                prompt_tokens = len(request.prompt.token_ids)
            async with aclosing(self._run(request)) as events:
                async for event in events:
                    prompt_tokens = event.prompt_tokens or prompt_tokens
                    for choice in event.choices:
                        completion_tokens += len(choice.token_ids) or 1
                    if event.usage is not None:
                        usage = event.usage
                    yield event
        except TrunnionError as error:
            failure = error
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if usage is None:  # whoever closes after the terminal event has it all
                failure = Cancelled("the caller gave the request up")
            raise
        finally:
            seconds = time.perf_counter() - began
            if usage is None and completion_tokens:  # what came before the end was used as well
                usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
            await hooks.after(RequestSummary(request=request, usage=usage, seconds=seconds, error=failure))

    async def _run(self, request: GenerateRequest | Prepared) -> AsyncGenerator[GenerateEvent, None]:
        prepared = request if isinstance(request, Prepared) else await self._prepare_one(request)
        if prepared.request.media:
            prepared = replace(prepared, request=await self._gate.admit(prepared.request))
        ended = False
        marks = MARKS.get()
        if marks is not None and not marks.handed:
            marks.handed = time.perf_counter()
        try:
            events = self.engine.generate(prepared.request)
            if prepared.request.deadline is not None:
                events = until(events, prepared.request.deadline)
            if prepared.transducers:
                events = transduce(events, prepared)
            async with aclosing(events):
                async for event in events:
                    ended = event.usage is not None
                    yield event
        except TrunnionError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise InternalError(f"{self._engine_name} cancelled a request that nobody gave up") from error
        except Exception as error:
            message = f"{self._engine_name} raised {type(error).__name__}, not an error of trunnion.errors: {error}"
            raise InternalError(message) from error
        if not ended:
            raise InternalError(
                f"{self._engine_name} ended a request without usage on its last event; the answer may be cut short"
            )

    @property
    def _engine_name(self) -> str:
        return f"engine {self.spec.engine.engine!r}"

    async def _prepare_one(self, request: GenerateRequest) -> Prepared:
        preparer = self._ready
        if _characters(request.prompt) > _OFFLOAD_CHARACTERS:
            result = await asyncio.to_thread(preparer.prepare_one, request)
        else:
            result = preparer.prepare_one(request)
        if isinstance(result, TrunnionError):
            raise result
        return result

    async def complete(self, request: GenerateRequest | Prepared) -> Completion:
        """Run one request and return everything it produced."""
        return await collect(self.generate(request))

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Embed prompts; messages are put through the chat template, without the start of an answer.

        Raises:
            UnsupportedFeature: The engine or its model cannot.
        """
        return await self._pooling.embed(await self._plain(prompts), dimensions=dimensions, adapter=adapter)

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Score how well each text answers the query, in order; higher is better.

        Raises:
            UnsupportedFeature: The engine or its model cannot.
        """
        return await self._pooling.score(query, texts)

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probability of each label, per prompt, in order; messages are templated as for :meth:`embed`.

        Raises:
            UnsupportedFeature: The engine or its model cannot.
        """
        return await self._pooling.classify(await self._plain(prompts))

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None = None) -> Transcription:
        """Return the text that is spoken in an audio file.

        Args:
            audio: The file's bytes.
            mime_type: What they are, such as ``audio/wav``.
            language: ISO 639-1 code of what is spoken; None lets the model find out.

        Raises:
            UnsupportedFeature: The engine or its model cannot.
        """
        return await self._pooling.transcribe(audio, mime_type=mime_type, language=language)

    async def pool(self, request: PoolingRequest) -> PoolingAnswer:
        """Answer a request to embed, to classify or to score.

        Raises:
            UnsupportedFeature: The engine or its model cannot.
        """
        (prompt,) = await self._plain([request.prompt])
        return await self._pooling.answer(replace(request, prompt=prompt) if prompt is not request.prompt else request)

    async def _plain(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return prompts without conversations: those are templated, and tokenized where the engine reads tokens."""
        asked = {
            place: GenerateRequest(prompt=replace(prompt, add_generation_prompt=False))
            for place, prompt in enumerate(prompts)
            if isinstance(prompt, MessagesPrompt)
        }
        made = list(prompts)
        if asked:
            ready = await asyncio.to_thread(self._ready.prepare, list(asked.values()))
            for place, one in zip(asked, ready, strict=True):
                if isinstance(one, TrunnionError):
                    raise one
                made[place] = one.request.prompt
        return made

    @property
    def _pooling(self) -> Pooling:
        return Pooling(self.engine, self.info)


def _characters(prompt: Prompt) -> int:
    """Return the rough number of characters to be processed; nothing is validated here."""
    if isinstance(prompt, TextPrompt):
        return len(prompt.text)
    if isinstance(prompt, MessagesPrompt):
        return sum(map(_content_characters, prompt.messages))
    return 0


def _content_characters(message: object) -> int:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else ()
    texts = (part.get("text") for part in parts if isinstance(part, Mapping))
    return sum(len(text) for text in texts if isinstance(text, str))


@asynccontextmanager
async def open_pipeline(
    spec: PipelineSpec | EngineSpec,
    *,
    registry: Registry | None = None,
    drain: float = 0.0,
    on_progress: OnProgress | None = None,
) -> AsyncIterator[Pipeline]:
    """Start a pipeline, and stop it at the end of the block.

    Args:
        spec: What to build; make an :class:`EngineSpec` with :func:`trunnion.engine_spec`.
        registry: Where plugins are looked up; this process's by default.
        drain: Seconds granted to requests in flight when the block ends.
        on_progress: Told how the model is fetched, from another thread.
    """
    pipeline = Pipeline(spec, registry=registry, on_progress=on_progress)
    try:
        await pipeline.start()
        yield pipeline
    finally:
        await pipeline.stop(drain=drain)
