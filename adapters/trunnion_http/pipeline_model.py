"""Serve a pipeline of this process."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from trunnion.engine import Embedding, EngineInfo, LoadReport, ProbesHealth
from trunnion.errors import TrunnionError
from trunnion.pipeline import Pipeline
from trunnion.requests import Prompt

from .tokenizer import PipelineTokenizer


class PipelineModel:
    """Wrap a :class:`trunnion.Pipeline` as a model handle. The pipeline is started and stopped by whoever made it."""

    __slots__ = ("classify", "detokenize", "generate", "name", "pipeline", "score", "tokenize")

    def __init__(self, name: str, pipeline: Pipeline) -> None:
        self.name = name
        self.pipeline = pipeline
        self.generate = pipeline.generate  # bound once: no layer of our own between the pipeline and the socket
        self.score = pipeline.score
        self.classify = pipeline.classify
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
        """Return the adapters the engine holds."""
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
        return await self.pipeline.embed(prompts, dimensions=dimensions, adapter=adapter)

    async def check_health(self) -> None:
        """Ask the engine, if it can tell."""
        if isinstance(self.pipeline.engine, ProbesHealth):
            await self.pipeline.engine.check_health()
