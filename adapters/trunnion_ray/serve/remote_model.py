"""See a model deployment from the gateway: its name, what is known of its engine, and two ways to send requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from trunnion.engine import Classification, Embedding, EngineInfo, Score, Transcription
from trunnion.errors import InternalError, Transient, TrunnionError
from trunnion.events import GenerateEvent
from trunnion.requests import GenerateRequest, Prompt

from . import _ray_private
from .errors import unwrap

_log = logging.getLogger("trunnion.serve")

_LEARN_PERIOD: Final = 0.5
_PATIENCE: Final = 5.0
"""Seconds to wait for a replica that is asked how it is."""

_SCRAPE: Final = 3.0
"""Seconds to wait for their metrics: Prometheus waits for ten by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Say of a model what is known before its engine has started."""

    name: str
    adapters: tuple[str, ...] = ()
    changing: bool = False
    """Whether adapters come and go while it runs."""
    sleeps: bool = False
    """Whether it may have no replica for lack of requests. It is then asked nothing but requests: any other question
    would wake it, or keep it awake."""


class RemoteModel:
    """Reach one model deployment by its handle; a :class:`trunnion_http.ModelHandle`."""

    def __init__(self, card: ModelCard, handle: Any) -> None:
        """Take what is known of the model, and its handle. To be made on the event loop that will send requests."""
        handle = _ray_private.quick_handle(handle)
        self.card = card
        self.whole = handle
        self.streaming = handle.options(stream=True)
        relaying = _ray_private.plain_pickle(handle)
        self.relay, self.relay_apart = relaying.relay, relaying.relay_apart  # made anew by every other use of a dot
        self.relay_stream = self.streaming.relay_stream
        self._info: EngineInfo | None = None
        self._adapters: tuple[str, ...] = card.adapters
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Return the served name."""
        return self.card.name

    @property
    def info(self) -> EngineInfo | None:
        """Return the engine's description; None until a replica was seen running."""
        return self._info

    @property
    def adapters(self) -> Collection[str]:
        """Return the adapters that may be asked for, as far as is known."""
        return self._adapters

    @property
    def ready(self) -> bool:
        """Tell whether a replica was seen running, or will run once there is a request."""
        return self.card.sleeps or self._info is not None

    async def learn(self) -> EngineInfo:
        """Ask a replica for the engine's description, once.

        Raises:
            Transient: No replica answered in time.
        """
        if self._info is None:
            response = self.whole.describe.remote()
            try:
                async with asyncio.timeout(_PATIENCE):
                    self._info = await response
            except TimeoutError as error:
                response.cancel()
                raise Transient(f"no replica of {self.name!r} is running yet", param="model") from error
            except Exception as error:
                raise unwrap(error) from error
        return self._info

    async def keep_learning(self) -> None:
        """Ask until a replica answers: then the model is ready, and its context length is known."""
        while not self.ready:
            with contextlib.suppress(TrunnionError):
                await self.learn()
            await asyncio.sleep(_LEARN_PERIOD)

    async def look(self, *, within: float = 0.0) -> None:
        """Ask a replica which adapters there are, unless that was done in the last ``within`` seconds."""
        if self.card.sleeps or not self.card.changing or time.monotonic() - self._looked < within:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        response = self.whole.adapters.remote()
        try:
            async with asyncio.timeout(_PATIENCE):
                self._adapters = tuple(await response)
        except Exception as error:  # noqa: BLE001 - what was known stays
            response.cancel()
            _log.debug("no replica of %r tells its adapters: %s", self.name, error)
        self._looked = time.monotonic()

    async def metrics(self) -> list[tuple[str, str]]:
        """Return what each replica tells Prometheus, with its tag; without those that do not answer in time."""
        if self.card.sleeps:
            return []
        try:
            answers = await _ray_private.ask_all(self.whole, "metrics", seconds=_SCRAPE)
        except Exception as error:  # noqa: BLE001 - no replica runs, or Serve cannot tell which do
            _log.debug("no replica of %r tells its metrics: %s", self.name, error)
            return []
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the events of one request that the replica runs."""
        response = self.streaming.generate.remote(request)
        try:
            async for event in response:
                yield event
        except Exception as error:
            raise unwrap(error) from error
        finally:
            response.cancel()

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order."""
        try:
            found: list[Embedding] = await self.whole.embed.remote(
                list(prompts), dimensions=dimensions, adapter=adapter
            )
        except Exception as error:
            raise unwrap(error) from error
        return found

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order."""
        try:
            found: list[Score] = await self.whole.score.remote(query, list(texts))
        except Exception as error:
            raise unwrap(error) from error
        return found

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probability of each label, per prompt, in order."""
        try:
            found: list[Classification] = await self.whole.classify.remote(list(prompts))
        except Exception as error:
            raise unwrap(error) from error
        return found

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None = None) -> Transcription:
        """Return the text that is spoken."""
        try:
            found: Transcription = await self.whole.transcribe.remote(audio, mime_type=mime_type, language=language)
        except Exception as error:
            raise unwrap(error) from error
        return found

    async def check_health(self) -> None:
        """Ask a replica. Raises what it reports, or :class:`Transient` if none answers."""
        if self.card.sleeps:
            return
        await self.learn()
        response = self.whole.failing.remote()
        try:
            async with asyncio.timeout(_PATIENCE):
                failure = await response
        except TimeoutError as error:
            response.cancel()
            raise Transient(f"no replica of {self.name!r} answers") from error
        except Exception as error:
            raise unwrap(error) from error
        if failure is not None:
            raise failure if isinstance(failure, Exception) else InternalError(str(failure))
