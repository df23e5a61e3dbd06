"""Serve a supervised engine to the HTTP surface of this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Collection, Sequence
from typing import TypeVar

from trunnion import Completion
from trunnion.engine import Classification, Embedding, EngineInfo, ProbesHealth, Score
from trunnion.errors import TrunnionError
from trunnion.events import ChoiceDelta, GenerateEvent, ToolCallDelta
from trunnion.requests import GenerateRequest, Prompt
from trunnion_batch.supervisor import EngineGone, Supervisor

T = TypeVar("T")


class SupervisedModel:
    """Be a model handle whose engine is replaced when it dies.

    Attributes:
        gone: Why there will be no engine any more, once that is so.
        cost: Tokens so far: of prompts, of these cached, of completions.
    """

    def __init__(self, name: str, supervisor: Supervisor) -> None:
        self.name = name
        self.gone: TrunnionError | None = None
        self._supervisor = supervisor

    @property
    def info(self) -> EngineInfo | None:
        """Return the engine's description."""
        return self._supervisor.pipeline.info

    @property
    def adapters(self) -> Collection[str]:
        """Return the adapters the engine holds."""
        return self._supervisor.pipeline.info.adapters

    @property
    def ready(self) -> bool:
        """Return True: rows wait for an engine."""
        return True

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the whole answer as one event."""
        yield whole_event(await self._told(self._supervisor.complete(request)))

    async def _told(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except EngineGone as gone:
            self.gone = gone.error
            raise gone.error from gone

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order."""
        return await self._told(self._supervisor.embed(prompts, dimensions=dimensions, adapter=adapter))

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order."""
        return await self._told(self._supervisor.score(query, texts))

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probability of each label, per prompt, in order."""
        return await self._told(self._supervisor.classify(prompts))

    async def check_health(self) -> None:
        """Ask the engine, if it can tell."""
        engine = self._supervisor.pipeline.engine
        if isinstance(engine, ProbesHealth):
            await engine.check_health()


def whole_event(completion: Completion) -> GenerateEvent:
    """Return a completion as the one event of its request."""
    choices = tuple(
        ChoiceDelta(
            index=choice.index,
            text=choice.text,
            token_ids=choice.token_ids,
            reasoning=choice.reasoning,
            tool_calls=tuple(
                ToolCallDelta(index=number, id=call.id, name=call.name, arguments=call.arguments)
                for number, call in enumerate(choice.tool_calls)
            ),
            logprobs=None if choice.logprobs is None else tuple(choice.logprobs),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
        )
        for choice in completion.choices
    )
    return GenerateEvent(choices=choices, usage=completion.usage, prompt_logprobs=completion.prompt_logprobs)
