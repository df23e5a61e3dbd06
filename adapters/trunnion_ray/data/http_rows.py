"""Answer rows that are bodies of HTTP requests, on the engine for OpenAI-compatible endpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from trunnion import EngineSpec, Pipeline, PluginPolicy, Relays, get_registry
from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.row_sampling import plain
from trunnion.spec import PipelineSpec

from .calls import Called

PAYLOAD: Final = "payload"
RESPONSE: Final = "http_response"


class HttpCaller:
    """Post each row's payload. Headers travel with the job, not with the engine's spec: they may hold a key.

    Args:
        url: Where to.
        headers: Request headers.
        qps: Requests started per second at most, in this replica; None for no limit.
        settings: Settings of the engine: retries, waits.
        nulls: Whether a null in a payload was meant: Arrow fills the fields that only other rows have with them.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        qps: float | None,
        settings: Mapping[str, Any],
        nulls: bool,
    ) -> None:
        """Check the settings where they are given."""
        registry = get_registry()
        self._path = _path(url)
        self._spec: EngineSpec = registry.engine_spec(
            "openai", "-", {"base_url": _base(url), "check_endpoint": False, **settings}
        )
        self._policy: PluginPolicy = registry.policy
        self._headers = dict(headers)
        self._gap = None if qps is None else 1.0 / qps
        self._nulls = nulls
        self._next = 0.0
        self._pipeline: Pipeline | None = None

    async def start(self) -> None:
        """Open the engine; the endpoint is not asked anything."""
        pipeline = Pipeline(PipelineSpec(engine=self._spec, policy=self._policy))
        await pipeline.start()
        self._pipeline = pipeline

    async def call(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer's JSON as the column ``http_response``. An error status is the row's error."""
        body = self._body(row)
        if self._gap is not None:
            await self._turn(self._gap)
        assert self._pipeline is not None  # set by start()
        engine = self._pipeline.engine
        assert isinstance(engine, Relays)  # as the engine declares
        return {RESPONSE: await engine.relay(body, path=self._path, headers=self._headers)}

    def _body(self, row: Mapping[str, Any]) -> Any:
        if row.get(PAYLOAD) is None:
            raise InvalidArgument(f"the row has no {PAYLOAD}; preprocess must return one", param=PAYLOAD)
        given = row[PAYLOAD]
        if isinstance(given, str):
            try:
                return json.loads(given)
            except ValueError as error:
                raise InvalidArgument(f"{PAYLOAD} is not valid JSON: {error}", param=PAYLOAD) from error
        body = plain(given)
        if _holds_files(body):
            raise UnsupportedFeature(
                f"{PAYLOAD} holds a file; bodies are JSON alone: encode it as base64 text", param=PAYLOAD
            )
        return body if self._nulls else _without_nulls(body)

    async def _turn(self, gap: float) -> None:
        """Wait until the next request may start: at even distances, whatever block it belongs to."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now) + gap
        await asyncio.sleep(self._next - gap - now)

    async def stop(self) -> None:
        """Close the engine."""
        if self._pipeline is not None:
            await self._pipeline.stop()


def answered(called: Called) -> Mapping[str, Any]:
    """Return the output columns of an answered row."""
    return called.answer


def _base(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _holds_files(body: Any) -> bool:
    values = body.values() if isinstance(body, Mapping) else ()
    return any(isinstance(value, (bytes, bytearray)) for value in values)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
