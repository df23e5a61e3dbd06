"""Run policy around the engine: request hooks and observers, never inside the token loop.

pluggy registers the objects; this wrapper calls them. With none installed the path costs nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .engine import EngineInfo
from .errors import InternalError, TrunnionError
from .events import Usage
from .requests import GenerateRequest

logger = logging.getLogger("trunnion.hooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSummary:
    """Tell observers how a request ended; ``seconds`` from admission to the last event."""

    request: GenerateRequest
    usage: Usage | None
    seconds: float
    error: TrunnionError | None = None


class RequestHooks(Protocol):
    """List the methods a hooks object may have. All are optional, each may be sync or async.

    ``before_request`` may refuse (raise a :class:`TrunnionError`) or return a replacement, which is passed on to the
    next hook; None keeps the request. Any other exception fails the request as an internal error. The others
    observe: what they raise is logged and harms no request. All run in the engine's process.
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


class HookChain:
    """Call hooks objects in their order, by the methods they have."""

    def __init__(self, hooks: Sequence[Any]) -> None:
        self._by_method = {name: [getattr(h, name) for h in hooks if hasattr(h, name)] for name in _METHODS}
        self.per_request = any(self._by_method[name] for name in _METHODS[:3])

    async def before(self, request: GenerateRequest) -> GenerateRequest:
        """Pass the request through every ``before_request``. Raises what they refuse with."""
        for hook in self._by_method["before_request"]:
            try:
                result = hook(request)
                if inspect.isawaitable(result):
                    result = await result
            except TrunnionError:
                raise
            except Exception as error:
                raise InternalError(f"request hook {_name(hook)} failed: {type(error).__name__}: {error}") from error
            if isinstance(result, GenerateRequest):
                request = result
            elif result is not None:
                raise InternalError(
                    f"request hook {_name(hook)} returned {type(result).__name__}, neither a request nor None"
                )
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
        for hook in self._by_method[method]:
            try:
                result = hook(value)
                if inspect.isawaitable(result):
                    await result
            except Exception:  # an observer cannot fail a request
                logger.exception("hook %s failed", _name(hook))


def _name(hook: Any) -> str:
    return f"{type(getattr(hook, '__self__', hook)).__name__}.{getattr(hook, '__name__', '?')}"
