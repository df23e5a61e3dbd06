"""Run requests on OpenAI-compatible endpoints, many at once over one connection pool."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urljoin

from trunnion.engine import Classification, Embedding, EngineInfo, LoadReport, Score, Transcription
from trunnion.errors import ConfigError, EngineDead, InternalError, TrunnionError
from trunnion.events import GenerateEvent
from trunnion.requests import GenerateRequest, Prompt

from .adaptive import Adaptive
from .body import BodyWriter, WireRequest
from .config import OpenAIConfig
from .flight import Flight
from .gate import Fixed, Gate, Place

if TYPE_CHECKING:
    from .attempts import Attempts
    from .endpoints import Endpoint
    from .http import Http

T = TypeVar("T")
J = TypeVar("J", Embedding, Score, Classification)
_PATIENCE: Final = 2.0
"""Seconds granted to requests that were ended by ``stop()``."""


class OpenAIEngine:
    """Mount an endpoint. The openai package is imported by ``start()``, not before.

    Streams are read as bytes and decoded into structs; see :mod:`trunnion_openai.events`.
    """

    def __init__(self, model: str | None, config: OpenAIConfig | None = None) -> None:
        """Keep what to connect to; nothing is opened."""
        self._model = model or ""
        self._config = OpenAIConfig() if config is None else config
        self._http: Http | None = None
        self._writer: BodyWriter | None = None
        most = self._config.max_concurrency
        self._gate = Gate(Adaptive(most) if self._config.concurrency == "adaptive" else Fixed(most))
        self._flights: set[Flight] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._info: EngineInfo | None = None
        self._started = False
        self._stopping = False

    async def start(self) -> EngineInfo:
        """Open the client and look at the endpoints. A second call returns the same.

        Raises:
            ConfigError: A variable that is to hold a secret is not set, or the address is none of such an API.
            Transient: Nobody answers within ``startup_timeout``.
            AuthenticationFailed: The key is missing or wrong.
            ModelNotFound: The endpoint lists its models, and this one is not among them.
        """
        if self._info is not None and not self._stopping:
            return self._info
        if self._started or self._stopping:
            raise ConfigError("this engine was started or stopped before; build a new one from its spec")
        self._started = True
        from .describe import describe
        from .http import Http

        config = self._config
        self._http = Http(config, self._gate)
        found = await self._http.look(self._model)
        self._model = found.model
        info = describe(found, config)
        self._writer = BodyWriter(
            found.model,
            found.dialect,
            stream_usage=config.stream_usage,
            extra=config.extra_body,
            context=info.context_length,
        )
        self._info = info
        return info

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the events of a stream; with delivery "final" a single one.

        A request that fails in a way that may pass is sent again, to another address where there is one, as long as
        nothing of it was yielded.

        Raises:
            UnsupportedFeature, InvalidArgument: A field has no place in the API, or the endpoint refuses it.
            Overloaded, Transient: The endpoint refused or failed, and so did the repetitions.
            DeadlineExceeded: ``total_timeout`` is over.
            Cancelled: The engine was stopped.
        """
        http = self._ready()
        assert self._writer is not None  # set by start(), as the other
        wire = self._writer.write(request)
        headers = {"X-Client-Request-Id": request.request_id, **(request.trace or {})}
        flight = Flight(self._config.total_timeout)
        attempts = http.attempts(wire, request.deadline)
        async with self._admitted(flight, attempts) as place:
            if not wire.stream:
                yield await self._exchange(http, flight, attempts, place, wire, headers, request)
                return
            while True:
                endpoint = await flight.wait(attempts.next)
                yielded = False
                event: GenerateEvent | None = None
                try:
                    stream = http.stream(endpoint, attempts.spent, flight, wire, headers, request)
                    async with contextlib.aclosing(stream) as events:
                        async for event in events:
                            if event.usage is not None:  # the last one: nothing can fail any more
                                attempts.answered(event.usage.total_tokens)
                            yielded = True
                            yield event
                except Exception as error:  # noqa: BLE001 - mapped, and raised unless it is sent again
                    failure = http.failure(error, endpoint, request.adapter)
                    if yielded:
                        attempts.cut(failure)
                        raise failure from _original(error, failure)
                    seconds = _wait(attempts, endpoint, failure, error)
                else:
                    return
                await _pause(flight, place, seconds)

    async def _exchange(  # noqa: PLR0917 - the parts of one request
        self,
        http: Http,
        flight: Flight,
        attempts: Attempts,
        place: Place,
        wire: WireRequest,
        headers: Mapping[str, str],
        request: GenerateRequest,
    ) -> GenerateEvent:
        def read(data: bytes, where: str) -> GenerateEvent:
            return http.reader(request, wire, where).whole(data)

        def used(event: GenerateEvent) -> int | None:
            return None if event.usage is None else event.usage.total_tokens

        return await self._whole(http, flight, attempts, place, wire, headers, read, used, request.adapter)

    async def _whole(  # noqa: PLR0917 - the parts of one request
        self,
        http: Http,
        flight: Flight,
        attempts: Attempts,
        place: Place,
        wire: WireRequest,
        headers: Mapping[str, Any],
        read: Callable[[bytes, str], T],
        used: Callable[[T], int | None],
        adapter: str | None = None,
    ) -> T:
        """Send a request whose answer is one body, again where that may help, and return what ``read`` makes of it.

        ``used`` returns the tokens that the answer says it took.
        """
        while True:
            endpoint = await flight.wait(attempts.next)
            try:
                data = await flight.wait(http.whole, endpoint, attempts.spent, wire, headers)
                answer = read(data, urljoin(f"{endpoint.url}/", wire.path.lstrip("/")))
            except Exception as error:  # noqa: BLE001 - mapped, and raised unless it is sent again
                failure = http.failure(error, endpoint, adapter)
                seconds = _wait(attempts, endpoint, failure, error)
            else:
                attempts.answered(used(answer))
                return answer
            await _pause(flight, place, seconds)

    @contextlib.asynccontextmanager
    async def _admitted(self, flight: Flight, attempts: Attempts) -> AsyncIterator[Place]:
        """Hold one of the places of requests in flight; ``stop()`` ends those that wait for one as well."""
        self._flights.add(flight)
        self._idle.clear()
        place = Place(self._gate)
        try:
            await flight.wait(place.take)
            yield place
        finally:
            attempts.over()
            place.leave()
            self._flights.discard(flight)
            if not self._flights:
                self._idle.set()

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order; the endpoint's count of tokens is shared out by length.

        Raises:
            UnsupportedFeature: The endpoint makes no embeddings, or a prompt is a conversation.
        """
        from .embedding import inputs, read_embeddings

        body: dict[str, Any] = {"encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        batches = inputs(prompts, self._config.embedding_batch, "embeddings")
        return await self._in_batches("/embeddings", body, "input", batches, read_embeddings, adapter)

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order, by the endpoint's ``/score``, which vLLM has and OpenAI has not.

        Raises:
            UnsupportedFeature: The endpoint has no such API, or its model scores nothing.
        """
        from .judging import missing_api, read_scores

        size = self._config.embedding_batch
        batches = [
            (list(range(start, min(start + size, len(texts)))), list(texts[start : start + size]))
            for start in range(0, len(texts), size)
        ]
        with missing_api("/score", "scores/1"):
            return await self._in_batches("/score", {"text_1": query}, "text_2", batches, read_scores)

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probabilities of the labels by the endpoint's ``/classify``, which vLLM has beside ``/v1``.

        It names the likeliest label alone: the others are ``LABEL_0`` and so on, by their place, unless the endpoint
        lists them under ``labels``.

        Raises:
            UnsupportedFeature: The endpoint has no such API, its model classifies nothing, or a prompt is a
                conversation.
        """
        from .embedding import inputs
        from .judging import missing_api, read_classifications

        batches = inputs(prompts, self._config.embedding_batch, "classification")
        with missing_api("/classify", "classifies/1"):
            return await self._in_batches("../classify", {}, "input", batches, read_classifications)

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None = None) -> Transcription:
        """Return what the endpoint's ``/audio/transcriptions`` hears; one that counts seconds counts no tokens.

        Raises:
            UnsupportedFeature: The endpoint has no such API, or its model transcribes nothing.
        """
        from .hearing import PATH, audio_form, read_transcription
        from .judging import missing_api

        http = self._ready()
        wire = audio_form(self._model, audio, mime_type, language)
        flight = Flight(self._config.total_timeout)

        def used(found: Transcription) -> int | None:
            return found.usage.total_tokens or None

        attempts = http.attempts(wire, None)
        with missing_api(PATH, "transcribes/1"):
            async with self._admitted(flight, attempts) as place:
                return await self._whole(http, flight, attempts, place, wire, {}, read_transcription, used)

    async def _in_batches(  # noqa: PLR0917 - the parts of one kind of request
        self,
        path: str,
        body: Mapping[str, Any],
        field: str,
        batches: Sequence[tuple[list[int], list[Any]]],
        read: Callable[[bytes, Sequence[Any], str], list[J]],
        adapter: str | None = None,
    ) -> list[J]:
        """Send batches side by side, and return what ``read`` makes of them in the order of all inputs.

        Args:
            path: Where to, relative to the endpoint's address.
            body: What all bodies have beside the model.
            field: Where the inputs go.
            batches: The inputs' places, and the inputs.
            read: Takes the answer, the inputs and the address.
            adapter: Named in place of the model.
        """
        http = self._ready()

        async def one(places: Sequence[int], values: list[Any]) -> list[tuple[int, J]]:
            whole = {"model": adapter or self._model, **body, field: values}
            wire = WireRequest(path, whole, stream=False, chat=False)
            flight = Flight(self._config.total_timeout)

            def made(data: bytes, where: str) -> list[J]:
                return read(data, values, where)

            def used(answers: list[J]) -> int:
                return sum(answer.usage.prompt_tokens for answer in answers)

            attempts = http.attempts(wire, None)
            async with self._admitted(flight, attempts) as place:
                found = await self._whole(http, flight, attempts, place, wire, {}, made, used, adapter)
            return list(zip(places, found, strict=True))

        tasks = [asyncio.ensure_future(one(*batch)) for batch in batches]
        try:
            pairs = [pair for done in await asyncio.gather(*tasks) for pair in done]
        finally:
            for task in tasks:  # where one failed, the others are given up
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [answer for _, answer in sorted(pairs, key=lambda pair: pair[0])]

    async def relay(self, body: Any, *, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """Post a body as it is, and return the JSON of the answer; retried as any request.

        Raises:
            TrunnionError: An error status, whatever its body; or an answer that is no JSON.
        """
        from .http import canonical
        from .wire import any_decoder, decode

        http = self._ready()
        flight = Flight(self._config.total_timeout)

        def read(data: bytes, where: str) -> Any:
            return decode(any_decoder, data, where)

        wire = WireRequest(path, body, stream=False, chat=False)
        attempts = http.attempts(wire, None)
        async with self._admitted(flight, attempts) as place:
            return await self._whole(http, flight, attempts, place, wire, canonical(headers or {}), read, _tokens)

    def _ready(self) -> Http:
        if self._stopping:
            raise EngineDead("the engine was stopped; build a new one from its spec")
        if self._http is None or self._writer is None:
            raise InternalError("the engine was not started; await start() first")
        return self._http

    def load(self) -> LoadReport:
        """Return this engine's own requests; what others send to the endpoint is not known here.

        ``capacity`` is what is sent at once at present, which changes where ``concurrency`` is adaptive.
        """
        running = self._gate.running
        return LoadReport(
            running=running,
            waiting=len(self._flights) - running,
            timestamp=time.monotonic(),
            capacity=self._gate.control.limit,
        )

    async def check_health(self) -> None:
        """Return if an endpoint answers. Raises :class:`EngineDead` otherwise."""
        http = self._ready()
        await http.check_health()

    async def stop(self, *, drain: float = 0.0) -> None:
        """Take no more, wait up to ``drain`` seconds for requests in flight, then end them with Cancelled."""
        self._stopping = True
        if drain > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    await self._idle.wait()
        for flight in tuple(self._flights):
            flight.stop()
        with contextlib.suppress(TimeoutError):  # whoever holds a stream without reading it never ends
            async with asyncio.timeout(_PATIENCE if self._gate.running else 0.1):
                await self._idle.wait()
        self._gate.close()
        http, self._http = self._http, None
        if http is not None:
            await http.close()


def _original(error: Exception, failure: TrunnionError) -> BaseException | None:
    return error.__cause__ if error is failure else error


async def _pause(flight: Flight, place: Place, seconds: float) -> None:
    """Wait before a repetition; the place is somebody else's meanwhile."""
    if seconds > 0:
        place.leave()
        await flight.wait(asyncio.sleep, seconds)
        await flight.wait(place.take_again)


def _tokens(answer: Any) -> int | None:
    """Return the tokens that a relayed answer says it took, if it says."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return total if isinstance(total, int) else None


def _wait(attempts: Attempts, endpoint: Endpoint, failure: TrunnionError, error: Exception) -> float:
    """Return the seconds until the next attempt. Raises the failure, ``from`` the original, if there is none."""
    from ._openai import lost

    try:
        return attempts.wait(endpoint, failure, lost=lost(error))
    except TrunnionError:
        raise failure from _original(error, failure)
