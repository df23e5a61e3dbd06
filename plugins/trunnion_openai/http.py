"""Speak HTTP with the endpoints: send, read whole answers and streams, look at them at start, check their health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final
from urllib.parse import urljoin

from trunnion.errors import ConfigError, EngineDead, TrunnionError
from trunnion.events import GenerateEvent
from trunnion.requests import GenerateRequest

from . import _openai
from .attempts import Attempts, Shared
from .body import WireRequest
from .config import OPENAI_URL, OpenAIConfig
from .describe import Found, find
from .endpoints import Endpoint, Endpoints
from .events import EventReader
from .flight import Flight
from .gate import Gate
from .limits import Limits, Quota, Spent, estimate
from .retry import RetryBudget
from .sse import ErrorData, EventSplitter
from .wire import ModelList, decode, models_decoder

logger = logging.getLogger("trunnion.openai")

_DONE: Final = b"[DONE]"
_LAST_BYTES: Final = 1.0
"""Seconds for the end of a stream to follow ``[DONE]``, so that its connection can be used again."""
_POLL: Final = 0.25


class Http:
    """Hold the pool and the clients of all addresses. Belongs to the loop it is made on."""

    def __init__(self, config: OpenAIConfig, gate: Gate) -> None:
        """Read the secrets. Raises :class:`ConfigError` for a variable that is not set."""
        self._config = config
        named = {name: _secret(variable, "headers_env") for name, variable in config.headers_env.items()}
        self._headers: dict[str, Any] = canonical({**config.headers, **named})
        ours = config.base_urls == (OPENAI_URL,)
        key = None
        if config.api_key_env is not None:
            key = _secret(config.api_key_env, "api_key_env")
        elif ours:
            key = _secret("OPENAI_API_KEY", "api_key_env")
        if key is None:
            self._headers.setdefault("Authorization", _openai.OMIT)
        if not ours:  # what the environment says of OpenAI's account is nobody else's business
            for name in ("OpenAI-Organization", "OpenAI-Project"):
                self._headers.setdefault(name, _openai.OMIT)
        self._http = _openai.make_http(config)
        self._clients = {url: _openai.make_client(url, self._http, key, config) for url in config.base_urls}
        weights = config.weights or (1.0,) * len(config.base_urls)
        self._endpoints = Endpoints(
            [
                Endpoint(
                    url,
                    weight=weight,
                    quota=Quota(config.limit_share, config.max_retry_wait),
                )
                for url, weight in zip(config.base_urls, weights, strict=True)
            ]
        )
        self._shared = Shared(
            config=config,
            endpoints=self._endpoints,
            gate=gate,
            budget=RetryBudget(config.retry_budget),
            limits=Limits(config),
        )

    def attempts(self, wire: WireRequest, deadline: float | None) -> Attempts:
        """Return the attempts of one request; ``deadline`` in seconds since the epoch."""
        return Attempts(self._shared, deadline, estimate(wire.body))

    @staticmethod
    def reader(request: GenerateRequest, wire: WireRequest, where: str) -> EventReader:
        """Return a reader for the answer to a request."""
        return EventReader(request, chat=wire.chat, where=where)

    @staticmethod
    def failure(error: Exception, endpoint: Endpoint, adapter: str | None = None) -> TrunnionError:
        """Return the error of the tree for what was raised while an endpoint was spoken to."""
        return _openai.failure(error, endpoint.url, adapter=adapter)

    async def _post(self, endpoint: Endpoint, spent: Spent, wire: WireRequest, headers: Mapping[str, Any]) -> Any:
        try:
            response = await _openai.post(
                self._clients[endpoint.url], wire.path, wire.body, {**self._headers, **headers}, wire.files
            )
        except Exception as error:
            endpoint.quota.heard(spent, _openai.headers_of(error))
            raise
        endpoint.quota.heard(spent, response.headers)
        return response

    async def whole(self, endpoint: Endpoint, spent: Spent, wire: WireRequest, headers: Mapping[str, Any]) -> bytes:
        """Return the body of the answer; raises what the client raises.

        ``spent`` is what had been sent to the endpoint with this request.
        """
        endpoint.in_flight += 1
        try:
            response = await self._post(endpoint, spent, wire, headers)
            try:
                data: bytes = await response.aread()
            finally:
                await response.aclose()
            return data
        finally:
            endpoint.in_flight -= 1

    async def stream(  # noqa: PLR0917 - the parts of one request
        self,
        endpoint: Endpoint,
        spent: Spent,
        flight: Flight,
        wire: WireRequest,
        headers: Mapping[str, Any],
        request: GenerateRequest,
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the events of a streamed answer, the terminal one once the connection is free again.

        Closing it hangs up. Raises what the client raises, and the errors of :class:`EventReader`.
        """
        endpoint.in_flight += 1
        response: Any = None
        reader = self.reader(request, wire, endpoint.url + wire.path)
        try:
            response = await flight.wait(self._post, endpoint, spent, wire, headers)
            kind = response.headers.get("content-type", "")
            if kind.startswith(("application/json", "text/html")):  # an error, or an endpoint that knows no streams
                last = reader.whole(await flight.wait(response.aread))
            else:
                async with contextlib.aclosing(self._events(flight, response, reader)) as events:
                    async for event in events:
                        yield event
                last = reader.end()
        finally:
            endpoint.in_flight -= 1
            if response is not None:
                await response.aclose()
        yield last

    async def _events(self, flight: Flight, response: Any, reader: EventReader) -> AsyncGenerator[GenerateEvent, None]:
        splitter = EventSplitter(self._config.max_event_bytes)
        # Plain bytes skip a layer of the client; compressed ones need it.
        plain = "content-encoding" not in response.headers
        async with contextlib.aclosing(response.aiter_raw() if plain else response.aiter_bytes()) as chunks:
            feed, step = reader.feed, chunks.__anext__
            while True:
                try:
                    chunk = await flight.wait(step)
                except StopAsyncIteration:
                    break
                for data in splitter.feed(chunk):
                    if data == _DONE:
                        await self._drain(step)
                        return
                    if type(data) is ErrorData:
                        raise reader.error(data)
                    event = feed(data)
                    if event is not None:
                        yield event
        if splitter.rest() != _DONE:
            raise reader.cut("without [DONE]")

    @staticmethod
    async def _drain(step: Any) -> None:
        """Read the end that follows ``[DONE]``: a connection that was not read to its end is closed."""
        with contextlib.suppress(Exception):  # the answer is whole, whatever comes
            async with asyncio.timeout(_LAST_BYTES):
                while True:
                    await step()

    async def look(self, model: str) -> Found:
        """Ask the endpoints for their models, until one answers or the time is up.

        Raises:
            TrunnionError: None answered, or what one answered makes the start futile.
        """
        config = self._config
        if not config.check_endpoint:
            return find(model, None, config)
        loop = asyncio.get_running_loop()
        ends = loop.time() + config.startup_timeout
        lists: list[ModelList | None] = []
        failures: dict[str, TrunnionError] = {}
        while not lists:
            failures.clear()
            found = await asyncio.gather(*(self._models(e, ends - loop.time()) for e in self._endpoints.all))
            for endpoint, answer in zip(self._endpoints.all, found, strict=True):
                if isinstance(answer, TrunnionError):
                    if not answer.retryable:
                        raise answer
                    failures[endpoint.url] = answer
                else:
                    lists.append(answer)
            if not lists:
                if loop.time() + _POLL >= ends:
                    raise next(iter(failures.values()))
                await asyncio.sleep(_POLL)
        for endpoint in self._endpoints.all:
            if endpoint.url in failures:
                endpoint.rest(config.cool_down)
                logger.warning("%s does not answer and is left alone for a while: %s", endpoint.url, failures)
        made = [find(model, listed, config) for listed in lists]
        return made[0]

    async def _models(self, endpoint: Endpoint, seconds: float) -> ModelList | TrunnionError | None:
        """Return the list of models, None if the endpoint has no such list, or the failure."""
        where = f"{endpoint.url}/models"
        try:
            async with asyncio.timeout(max(seconds, 0.1)):
                client = self._clients[endpoint.url]
                response = await _openai.get(client, "/models", self._headers, max(seconds, 0.1))
        except TimeoutError as error:
            return _openai.failure(_openai.timed_out(error), where)
        except Exception as error:  # noqa: BLE001 - mapped, and raised by the caller unless another address answers
            failure = _openai.failure(error, where)
            if failure.details.get("status") in (404, 405, 501):
                logger.warning("%s lists no models; whether it serves the one asked for is not known", endpoint.url)
                return None
            failure.__cause__ = error
            return failure
        try:
            listed: ModelList = decode(models_decoder, response.content, where)
        except TrunnionError as error:
            return ConfigError(
                f"{endpoint.url} is no OpenAI-compatible API: {error}; base_url ends in /v1 as a rule", param="base_url"
            )
        return listed

    async def check_health(self) -> None:
        """Ask every address until one answers. Raises :class:`EngineDead` if none does."""
        seconds = self._config.connect_timeout
        reasons = []
        for endpoint in self._endpoints.all:
            try:
                async with asyncio.timeout(seconds):
                    url = urljoin(f"{endpoint.url}/", self._config.health_path)
                    await _openai.get(self._clients[endpoint.url], url, self._headers, seconds)
            except Exception as error:  # noqa: BLE001 - told below
                failure = _openai.failure(error, endpoint.url)
                if failure.details.get("status") in (404, 405, 501):
                    return  # it answers, if not to this
                reasons.append(str(failure))
            else:
                return
        raise EngineDead(f"no endpoint is healthy: {'; '.join(reasons)}")

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()


def canonical(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with those that the client sets as well under the client's own spelling."""
    return {_SPELLING.get(name.lower(), name): value for name, value in headers.items()}


_SPELLING: Final = {name.lower(): name for name in ("Authorization", "OpenAI-Organization", "OpenAI-Project")}


def _secret(variable: str, setting: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"{setting} names the environment variable {variable}, which is not set", param=setting)
    return value
