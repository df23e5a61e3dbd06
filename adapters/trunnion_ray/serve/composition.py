"""Serve a program over several models as one model: async Python between them, the same API in front."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from ray import serve
from ray.serve import Application

from trunnion.completion import Completion, collect
from trunnion.engine import Classification, Embedding, EngineInfo, Score
from trunnion.errors import ConfigError, InternalError, UnsupportedFeature
from trunnion.events import ChoiceDelta, FinishReason, GenerateEvent, Usage
from trunnion.requests import GenerateRequest, Prompt
from trunnion_http import App, HTTPSettings, ModelHandle, create_app

from .application import card_of, model_application, outliving, read_models, unique_names
from .config import GatewayConfig, ModelConfig
from .options import pipeline_spec
from .remote_model import ModelCard, RemoteModel
from .replica import ReplicaApp
from .topology import describe_gateway


class Voice:
    """Call one model from a program, and count what it used. Calls raise :class:`~trunnion.errors.TrunnionError`."""

    def __init__(self, model: RemoteModel, tally: list[Usage]) -> None:
        self._model = model
        self._tally = tally

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the events of one request, by the contract of :meth:`trunnion.engine.Engine.generate`."""
        async with aclosing(self._model.generate(replace(request, model=self._model.name))) as events:
            async for event in events:
                if event.usage is not None:
                    self._tally.append(event.usage)
                yield event

    async def complete(self, request: GenerateRequest) -> Completion:
        """Run one request and return everything it produced."""
        return await collect(self.generate(replace(request, delivery="final")))

    async def embed(self, prompts: Sequence[Prompt], *, dimensions: int | None = None) -> list[Embedding]:
        """Return one embedding per prompt, in order."""
        found = await self._model.embed(prompts, dimensions=dimensions)
        self._tally += [one.usage for one in found]
        return found

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order; higher is better."""
        found = await self._model.score(query, texts)
        self._tally += [one.usage for one in found]
        return found

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probability of each label, per prompt, in order."""
        found = await self._model.classify(prompts)
        self._tally += [one.usage for one in found]
        return found


class Program(Protocol):
    """Answer a request with the help of models, by name. Yield text, or events of the models as they come."""

    def __call__(self, request: GenerateRequest, models: Mapping[str, Voice], /) -> AsyncIterator[str | GenerateEvent]:
        """Yield the answer, piece by piece."""
        ...


class ComposedModel:
    """Run the program as a model handle of the HTTP surface."""

    adapters: tuple[str, ...] = ()

    def __init__(self, name: str, program: Program, models: Sequence[RemoteModel]) -> None:
        self.name = name
        self._program = program
        self._models = models

    @property
    def info(self) -> EngineInfo | None:
        """Return None: a program has no engine."""
        return None

    @property
    def ready(self) -> bool:
        """Tell whether every model it calls answers."""
        return all(model.ready for model in self._models)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield what the program yields as one choice, then the reason of its end and what all models used."""
        if request.sampling.n != 1:
            raise UnsupportedFeature(f"{self.name!r} gives one choice; leave n out", param="n")
        tally: list[Usage] = []
        voices = {model.name: Voice(model, tally) for model in self._models}
        reason: FinishReason = "stop"
        pieces: AsyncIterator[Any] = self._program(request, voices)
        try:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield GenerateEvent(choices=(ChoiceDelta(text=piece),))
                    continue
                if not isinstance(piece, GenerateEvent):
                    message = f"the program of {self.name!r} yielded {type(piece).__name__}, neither text nor an event"
                    raise InternalError(message)
                ends = [choice.finish_reason for choice in piece.choices if choice.finish_reason is not None]
                reason = ends[-1] if ends else reason
                deltas = tuple(replace(one, index=0, finish_reason=None, stop_reason=None) for one in piece.choices)
                if deltas:
                    yield GenerateEvent(choices=deltas)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        yield GenerateEvent(choices=(ChoiceDelta(finish_reason=reason),), usage=_sum(tally))

    async def embed(
        self,
        prompts: Sequence[Prompt],  # noqa: ARG002 - as every handle
        *,
        dimensions: int | None = None,  # noqa: ARG002
        adapter: str | None = None,  # noqa: ARG002
    ) -> list[Embedding]:
        """Refuse: a program answers."""
        raise UnsupportedFeature(f"{self.name!r} makes no embeddings", param="model")

    async def check_health(self) -> None:
        """Ask every model it calls. Raises what one of them reports."""
        await asyncio.gather(*(model.check_health() for model in self._models))


def _sum(tally: Sequence[Usage]) -> Usage:
    return Usage(
        prompt_tokens=sum(one.prompt_tokens for one in tally),
        completion_tokens=sum(one.completion_tokens for one in tally),
        cached_tokens=sum(one.cached_tokens for one in tally),
        reasoning_tokens=sum(one.reasoning_tokens for one in tally),
    )


class Composer:
    """Be the ingress deployment that runs the program."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, name: str, program: Program, cards: Sequence[ModelCard], handles: Sequence[Any], settings: HTTPSettings
    ) -> None:
        models = [RemoteModel(card, handle) for card, handle in zip(cards, handles, strict=True)]
        composed: ModelHandle = ComposedModel(name, program, models)
        self._app: App = create_app([composed], settings)
        self._app.notes.update(describe_gateway())
        loop = asyncio.get_running_loop()
        self._learning = [loop.create_task(model.keep_learning()) for model in models if not model.card.sleeps]

    def __serve_build_asgi_app__(self) -> ReplicaApp:
        return ReplicaApp(self._app)

    async def __del__(self) -> None:
        for task in getattr(self, "_learning", ()):
            task.cancel()


def compose(
    name: str,
    program: Callable[..., Any],
    models: Sequence[ModelConfig | Mapping[str, Any]],
    *,
    http: HTTPSettings | None = None,
    gateway: GatewayConfig | None = None,
) -> Application:
    """Build an application that serves a program over models as one model.

    Args:
        name: What clients send as ``model``.
        program: An async generator function of the request and of the models by name (:class:`Voice`). It runs in
            Serve's replicas, so it must be importable there, or picklable.
        models: The models it calls, each a deployment of its own.
        http: Limits and keys of the HTTP surface.
        gateway: How the deployment that runs the program is deployed.

    Raises:
        ConfigError: Two models have one name, or an engine refuses its configuration.
    """
    configs = read_models(models)
    names = unique_names(configs)
    call = program if inspect.isroutine(program) else type(program).__call__
    if not inspect.isasyncgenfunction(call):
        message = "the program must be an async generator function: `async def` with `yield`, of a request and models"
        raise ConfigError(message, param="program")
    if name in names:
        message = f"the program and one of its models are both named {name!r}; give one of them another name"
        raise ConfigError(message, param="name")
    gateway, http = gateway or GatewayConfig(), http or HTTPSettings()
    specs = [pipeline_spec(config) for config in configs]
    apps = [model_application(config, http, spec=spec) for config, spec in zip(configs, specs, strict=True)]
    deployment = serve.deployment(serve.ingress()(Composer)).options(
        name=f"composition:{name}".replace("/", "--"),
        num_replicas=gateway.num_replicas,
        ray_actor_options=dict(gateway.ray_actor_options),
        max_ongoing_requests=gateway.max_ongoing_requests,
        graceful_shutdown_timeout_s=outliving(apps),
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    cards = [card_of(config, spec) for config, spec in zip(configs, specs, strict=True)]
    return deployment.bind(name, program, cards, apps, http)
