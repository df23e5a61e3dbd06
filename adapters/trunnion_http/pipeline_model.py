"""Serve a pipeline of this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing

from trunnion.adapter_library import AdapterLibrary
from trunnion.engine import Embedding, EngineInfo, LoadReport, ProbesHealth, ResetsCache, Sleeps
from trunnion.errors import Overloaded, TrunnionError, UnsupportedFeature
from trunnion.events import GenerateEvent
from trunnion.pipeline import Pipeline
from trunnion.requests import GenerateRequest, Prompt

from .administration import Order
from .tokenizer import PipelineTokenizer


class PipelineModel:
    """Wrap a :class:`trunnion.Pipeline` as a model handle. The pipeline is started and stopped by whoever made it.

    With a ``library``, adapters are those that it knows, and one is loaded when it is first asked for.
    """

    __slots__ = ("classify", "detokenize", "generate", "library", "name", "pipeline", "score", "tokenize", "transcribe")

    def __init__(self, name: str, pipeline: Pipeline, library: AdapterLibrary | None = None) -> None:
        self.name = name
        self.pipeline = pipeline
        self.library = library
        # Bound once: no layer of our own between the pipeline and the socket.
        self.generate = pipeline.generate if library is None else self._generate
        self.score = pipeline.score
        self.classify = pipeline.classify
        self.transcribe = pipeline.transcribe
        tokenizer = PipelineTokenizer(pipeline)
        self.tokenize = tokenizer.tokenize
        self.detokenize = tokenizer.detokenize

    @property
    def info(self) -> EngineInfo | None:
        """Return the engine's description; None before the pipeline was started."""
        try:
            return self.pipeline.info
        except TrunnionError:
            return None

    @property
    def adapters(self) -> Collection[str]:
        """Return the adapters that may be asked for."""
        if self.library is not None:
            return self.library.shelf
        info = self.info
        return () if info is None else info.adapters

    def load(self) -> LoadReport | None:
        """Return the engine's load, if it reports one."""
        return self.pipeline.load()

    @property
    def ready(self) -> bool:
        """Tell whether the pipeline was started."""
        return self.info is not None

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order."""
        if adapter is not None and self.library is not None:
            async with self.library.shelf.lent(adapter):
                return await self.pipeline.embed(prompts, dimensions=dimensions, adapter=adapter)
        return await self.pipeline.embed(prompts, dimensions=dimensions, adapter=adapter)

    def _generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        if request.adapter is None:
            return self.pipeline.generate(request)
        return self._generate_with(request.adapter, request)

    async def _generate_with(self, adapter: str, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        assert self.library is not None
        lent = self.library.shelf.lent(adapter, deadline=request.deadline)
        async with lent, aclosing(self.pipeline.generate(request)) as events:
            async for event in events:
                yield event

    async def check_health(self) -> None:
        """Ask the engine, if it can tell."""
        if isinstance(self.pipeline.engine, ProbesHealth):
            await self.pipeline.engine.check_health()

    async def administer(self, order: Order) -> None:
        """Carry an order out in this engine; see :class:`trunnion_http.administration.Administrated`."""
        engine = self.pipeline.engine
        if order.verb in ("load_adapter", "unload_adapter"):
            if self.library is None:
                message = (
                    "adapters cannot be loaded here; start the server with the folders that they may come from "
                    "(--adapter-folder, or lora.folders of a model)"
                )
                raise UnsupportedFeature(message, param="lora_name")
            if order.verb == "load_adapter":
                await self.library.load(order.name, order.path)
            else:
                await self.library.unload(order.name)
            return
        protocols = self.pipeline.info.capabilities.protocols
        if order.verb == "reset_prefix_cache":
            if "resets_cache/1" not in protocols or not isinstance(engine, ResetsCache):
                raise _cannot(self, "forget cached prefixes")
            if not await engine.reset_prefix_cache():
                raise Overloaded("requests in flight hold cached prefixes; try again", retry_after=1.0)
        elif "sleeps/1" not in protocols or not isinstance(engine, Sleeps):
            raise _cannot(self, "sleep")
        elif order.verb == "sleep":
            await engine.sleep(level=order.level)
        else:
            await engine.wake()


def _cannot(model: PipelineModel, what: str) -> UnsupportedFeature:
    reason = model.pipeline.info.capabilities.reasons.get("sleeps/1" if what == "sleep" else "resets_cache/1")
    because = f": {reason}" if reason else ""
    return UnsupportedFeature(f"engine {model.pipeline.info.engine!r} cannot {what}{because}", param="model")
