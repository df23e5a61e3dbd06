"""Hold one engine and answer for it: over HTTP, to a gateway, and to Python callers with a deployment handle."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from trunnion.adapter_library import AdapterLibrary
from trunnion.adapter_setting import LoraSettings
from trunnion.completion import Completion, collect
from trunnion.engine import Classification, Embedding, EngineInfo, LoadReport, ProbesHealth, Score, Transcription
from trunnion.errors import EngineDead, TrunnionError
from trunnion.events import GenerateEvent
from trunnion.pipeline import Pipeline
from trunnion.requests import GenerateRequest, Prompt
from trunnion.spec import PipelineSpec
from trunnion_http import App, HTTPSettings, create_app
from trunnion_http.metrics import TOLD_AHEAD, exposition
from trunnion_http.otel import flush_traces, trace_export
from trunnion_ray.reaper import Reaper

from .canary import Canary
from .config import Topology
from .data_channel import ReturnAddress
from .data_channel_replica import Outlet
from .logs import log_to_stderr
from .relay import Head, RelayedRequest, Response, respond, stream
from .shared_model import SharedModel
from .topology import describe_replica, own_tag

_log = logging.getLogger("trunnion.serve")
_LAST_WORDS: Final = 1.0
"""Seconds a replica with a dead engine has left, for the answers that say so."""
_STOP_LIMIT: Final = 20.0
_CATCH_UP: Final = 15.0
"""Seconds a new replica waits for the adapters that the others have, before it takes requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """Say what a replica holds; all that crosses to it."""

    name: str
    pipeline: PipelineSpec
    lora: LoraSettings = field(default_factory=LoraSettings)
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Declared adapters that are loaded when they are first asked for."""
    http: HTTPSettings = field(default_factory=HTTPSettings)
    canary_period: float | None = None
    canary_timeout: float = 30.0
    topology: Topology = "auto"


class ReplicaApp:
    """Pass HTTP on to the app, under Serve's conventions: the request id header is Serve's own to set."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [line for line in message["headers"] if line[0] != b"x-request-id"]
            await send(message)

        await self.app(scope, receive, sending)


class ModelReplica:
    """Run one pipeline on the event loop that also answers HTTP.

    As the ingress of an application it serves the OpenAI API itself; behind a gateway it is sent raw requests through
    :meth:`relay`, :meth:`relay_apart` and :meth:`relay_stream`. Methods for Python callers: :meth:`generate` (a
    stream), :meth:`complete`, :meth:`embed`, :meth:`score`, :meth:`classify`, :meth:`transcribe`, :meth:`load`,
    :meth:`describe`, :meth:`explain`.
    """

    async def __init__(self, spec: ReplicaSpec, desk: Any = None) -> None:  # type: ignore[misc]  # Serve awaits it
        log_to_stderr(requests=spec.http.log_requests)
        self._spec = spec
        export = trace_export(spec.http)
        self._leaving: asyncio.Task[None] | None = None
        self._closed = False
        self._reaper = Reaper()
        self._outlet = Outlet()
        self._pipeline = Pipeline(spec.pipeline)
        self._reaper.start()
        self._library: AdapterLibrary | None = None
        try:
            await self._pipeline.start()
            if spec.lora.in_use:
                self._library = AdapterLibrary(self._pipeline, spec.lora, spec.adapters)
                await self._library.start()
        except BaseException:
            await self._pipeline.stop()
            self._reaper.close()
            raise
        self._reaper.settle()
        if export is not None:
            export.start()
        self._model = SharedModel(spec.name, self._pipeline, self._library, desk)
        await self._model.catch_up(_CATCH_UP)
        self._canary: Canary | None = None
        if spec.canary_period is not None:
            seconds = {"period": spec.canary_period, "timeout": spec.canary_timeout}
            self._canary = Canary(self._pipeline, **seconds, dead=self._stalled)
            self._canary.start()
        self._app = create_app([self._model], spec.http)
        self._app.notes.update(describe_replica(spec.topology))
        self._app.instance = own_tag() or self._app.instance
        _log.info("serving %r: %s", spec.name, self._app.notes)

    def __serve_build_asgi_app__(self) -> ReplicaApp:
        return ReplicaApp(self._app)

    async def check_health(self) -> None:
        """Raise :class:`EngineDead` if the engine died, and let the replica end soon after.

        A dead engine never comes back. Serve would restart the replica after three failed looks; a replica that ends
        by itself is replaced at once.
        """
        self._reaper.refresh()
        if self._closed:
            return  # the engine stands still because it was told to
        engine = self._pipeline.engine
        if not isinstance(engine, ProbesHealth):
            return
        try:
            await engine.check_health()
        except EngineDead as error:
            self._give_up(str(error), stop=True)
            raise

    def _stalled(self, reason: str) -> None:
        self._give_up(reason, stop=False)

    def _give_up(self, reason: str, *, stop: bool) -> None:
        """End this replica soon; ``stop``: the engine may still listen."""
        if self._leaving is None:
            _log.error("the engine of %r died, the replica will be replaced: %s", self._spec.name, reason)
            self._app.draining = True
            self._leaving = asyncio.get_running_loop().create_task(self._leave(stop=stop))

    async def _leave(self, *, stop: bool) -> None:
        await asyncio.sleep(_LAST_WORDS)
        try:
            if stop:
                async with asyncio.timeout(_STOP_LIMIT):
                    await self._stop()
        except Exception:  # noqa: BLE001 - it ends anyway
            _log.exception("the dead engine of %r could not be stopped", self._spec.name)
        os._exit(1)  # the watcher takes what the engine left behind

    async def close_doors(self, drain: float) -> None:
        """Take no more requests, and stop the engine once those in flight are done.

        Args:
            drain: Seconds that they have. What outlasts them is told ``unavailable``: in a stream, by an error event.
        """
        self._app.close()
        self._closed = True
        await self._app.suspend_batches()
        if self._canary is not None:
            self._canary.close()
        await self._pipeline.stop(drain=drain)

    async def _stop(self) -> None:
        await self._app.suspend_batches()
        if self._canary is not None:
            self._canary.close()
        self._model.close()
        self._outlet.close()
        if self._library is not None:
            await self._library.close()
        await self._pipeline.stop()
        self._reaper.close()
        await asyncio.to_thread(flush_traces)

    async def __del__(self) -> None:
        """Stop the engine. Serve calls this once the requests in flight are done or their time is up."""
        if getattr(self, "_app", None) is not None:
            self._app.draining = True
            await self._stop()

    async def relay(self, request: RelayedRequest) -> Response:
        """Answer a relayed request whole."""
        return await respond(self._app, request)

    async def relay_stream(self, request: RelayedRequest) -> AsyncGenerator[Head | bytes, None]:
        """Answer a relayed request piece by piece: first the head, then bytes."""
        answer = stream(self._app, request)
        try:
            async for piece in answer:
                yield piece
        finally:
            await answer.aclose()

    async def relay_apart(self, request: RelayedRequest, to: ReturnAddress) -> bool:
        """Answer a relayed request over the gateway's data channel; False if that is out of reach from here."""
        return await self._outlet.answer(self._app, request, to)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the events of one request. Call it with ``handle.options(stream=True)``."""
        events = self._model.generate(request)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def complete(self, request: GenerateRequest) -> Completion:
        """Run one request and return everything it produced."""
        return await collect(self._model.generate(request))

    async def embed(
        self, prompts: list[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order."""
        return await self._model.embed(prompts, dimensions=dimensions, adapter=adapter)

    async def score(self, query: str, texts: list[str]) -> list[Score]:
        """Return one score per text, in order; higher is better."""
        return await self._pipeline.score(query, texts)

    async def classify(self, prompts: list[Prompt]) -> list[Classification]:
        """Return the probability of each label, per prompt, in order."""
        return await self._pipeline.classify(prompts)

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None = None) -> Transcription:
        """Return the text that is spoken."""
        return await self._pipeline.transcribe(audio, mime_type=mime_type, language=language)

    async def load(self) -> LoadReport | None:
        """Return the engine's load; None if it reports none."""
        return self._pipeline.load()

    async def metrics(self) -> tuple[str, str]:
        """Return this replica's tag and what it tells Prometheus, without what its gateway counts itself."""
        return self._app.instance, exposition(self._app, without=TOLD_AHEAD)

    async def record_routing_stats(self) -> dict[str, Any]:
        """Return the load for routers; Serve asks now and then."""
        load = self._pipeline.load()
        if load is None:
            return {}
        adapters = load.adapters if self._library is None else self._library.shelf.loaded
        figures = {"running": load.running, "waiting": load.waiting, "written": time.time()}
        return {**figures, "adapters": list(adapters)} if adapters else figures

    async def describe(self) -> EngineInfo:
        """Return the engine's description."""
        return self._pipeline.info

    async def adapters(self) -> list[str]:
        """Return the names of the adapters that may be asked for."""
        return list(self._model.adapters)

    async def explain(self) -> str:
        """Describe engine and plan in words."""
        return self._pipeline.explain()

    async def failing(self) -> TrunnionError | None:
        """Return why the engine is unhealthy; None if it is not."""
        engine = self._pipeline.engine
        try:
            if isinstance(engine, ProbesHealth):
                await engine.check_health()
        except TrunnionError as error:
            return error
        return None
