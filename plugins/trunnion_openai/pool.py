"""Share the connections of an engine out over small pools: a large one takes longer over each request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from . import _openai
from .config import OpenAIConfig

SIZE: Final = 8
"""Connections of one pool."""


class Pools:
    """Lend HTTP clients, each to at most so many requests at once. Belongs to the loop it is made on."""

    def __init__(self, config: OpenAIConfig, key: str | None) -> None:
        """Make nothing yet: pools are made as they are needed."""
        self._config = config
        self._key = key
        self._https: list[Any] = []
        self._in_use: list[int] = []
        self._clients: dict[tuple[int, str], Any] = {}

    @contextlib.contextmanager
    def client(self, url: str) -> Iterator[Any]:
        """Lend a client for an address: of the first pool with a connection to spare, so that few are kept alive."""
        number = next((index for index, used in enumerate(self._in_use) if used < SIZE), len(self._in_use))
        if number == len(self._in_use):
            self._https.append(_openai.make_http(self._config, SIZE))
            self._in_use.append(0)
        client = self._clients.get((number, url))
        if client is None:
            client = _openai.make_client(url, self._https[number], self._key, self._config)
            self._clients[number, url] = client
        self._in_use[number] += 1
        try:
            yield client
        finally:
            self._in_use[number] -= 1

    async def close(self) -> None:
        """Close every connection."""
        for http in self._https:
            await http.aclose()
