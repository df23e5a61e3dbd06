"""Run policy around the engine: request hooks and observers, never inside the token loop.

pluggy registers the objects; this wrapper calls them. With none installed the path costs nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .engine import EngineInfo
from .errors import InternalError, TrunnionError
from .events import Usage
from .requests import GenerateRequest

logger = logging.getLogger("trunnion.hooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSummary:
    """Tell observers how a request ended; ``seconds`` from admission to the last event.

    ``usage`` of one that failed or was given up counts the tokens that had come; None where none had.
    """

    request: GenerateRequest
    usage: Usage | None
    seconds: float
    error: TrunnionError | None = None


class RequestHooks(Protocol):
    """List the methods a hooks object may have. All are optional, each may be sync or async.

    ``before_request`` may refuse (raise a :class:`TrunnionError`) or return a replacement, which is passed on to the
    next hook; None keeps the request. Any other exception fails the request as an internal error. The others
    observe: what they raise harms no request, and is logged, with its traceback once per method and process. All run
    in the engine's process.
    """

    def before_request(self, request: GenerateRequest) -> GenerateRequest | Awaitable[GenerateRequest | None] | None:
        """Admit, change or refuse a request, before it is planned.

        What stages after it must know goes along as a note (:meth:`GenerateRequest.with_note`).
        """
        ...

    def after_response(self, summary: RequestSummary) -> Awaitable[None] | None:
        """Observe a request that ended well."""
        ...

    def on_error(self, summary: RequestSummary) -> Awaitable[None] | None:
        """Observe a request that failed or was given up (``Cancelled``)."""
        ...

    def on_engine_start(self, info: EngineInfo) -> Awaitable[None] | None:
        """Observe that an engine is ready."""
        ...

    def on_engine_stop(self, info: EngineInfo) -> Awaitable[None] | None:
        """Observe that an engine stopped."""
        ...


_METHODS = ("before_request", "after_response", "on_error", "on_engine_start", "on_engine_stop")

_told: Final[set[tuple[HooksOrigin, str]]] = set()
"""Hooks of this process, and the observer of theirs whose failure was logged: one traceback says enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksOrigin:
    """Say where hooks come from: their name, the distribution with its version, the entry point; "" if not known."""

    name: str
    distribution: str = ""
    entry_point: str = ""

    def __str__(self) -> str:
        """Return the name with the distribution: ``audit (trunnion-audit 0.1.0)``."""
        return f"{self.name} ({self.distribution})" if self.distribution else self.name

    def blame(self, what: str) -> str:
        """Return a sentence about what these hooks did wrong, and how to do without them."""
        where = f" ({self.distribution})" if self.distribution else ""
        advice = f"; --block-plugin {self.entry_point} leaves it out" if self.entry_point else ""
        return f"hooks {self.name!r}{where}: {what}{advice}"


class HookChain:
    """Call hooks objects in their order, by the methods they have; ``origins`` says where each of them comes from."""

    def __init__(self, hooks: Sequence[Any], origins: Sequence[HooksOrigin] = ()) -> None:
        known = origins or [HooksOrigin(name=type(hook).__name__) for hook in hooks]
        pairs = list(zip(known, hooks, strict=True))
        self._by_method = {name: [(o, getattr(h, name)) for o, h in pairs if hasattr(h, name)] for name in _METHODS}
        self.per_request = any(self._by_method[name] for name in _METHODS[:3])

    async def before(self, request: GenerateRequest) -> GenerateRequest:
        """Pass the request through every ``before_request``. Raises what they refuse with."""
        for origin, hook in self._by_method["before_request"]:
            try:
                result = hook(request)
                if inspect.isawaitable(result):
                    result = await result
            except TrunnionError:
                raise
            except Exception as error:
                raised = f"before_request raised {type(error).__name__}: {error}"
                raise InternalError(origin.blame(raised)) from error
            if isinstance(result, GenerateRequest):
                request = result
            elif result is not None:
                returned = f"before_request returned {type(result).__name__}, neither a request nor None"
                raise InternalError(origin.blame(returned))
        return request

    async def after(self, summary: RequestSummary) -> None:
        """Tell the observers that a request ended."""
        await self._observe("on_error" if summary.error is not None else "after_response", summary)

    async def engine_started(self, info: EngineInfo) -> None:
        """Tell the observers that the engine is ready."""
        await self._observe("on_engine_start", info)

    async def engine_stopped(self, info: EngineInfo) -> None:
        """Tell the observers that the engine stopped."""
        await self._observe("on_engine_stop", info)

    async def _observe(self, method: str, value: object) -> None:
        for origin, hook in self._by_method[method]:
            try:
                result = hook(value)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - an observer cannot fail a request
                _log(origin, method, error)


def _log(origin: HooksOrigin, method: str, error: Exception) -> None:
    """Log a failure with its traceback, once in a process; of further ones the message alone, at DEBUG."""
    said = origin.blame(f"{method} raised {type(error).__name__}: {error}")
    if (origin, method) in _told:
        logger.debug("%s", said)
        return
    if origin.entry_point:
        _told.add((origin, method))
        said += " (said once; its further failures are logged at DEBUG)"
    logger.error("%s", said, exc_info=error)
