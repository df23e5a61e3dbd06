"""Carry what the engine's thread makes of one request to the one who waits for it on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from trunnion import ChoiceDelta, GenerateEvent, TokenLogprob, Usage
from trunnion.errors import TrunnionError


class Logprob(NamedTuple):
    """Hold the logprob of a token, and the likeliest with theirs."""

    value: float
    top: list[tuple[int, float]]


@dataclass(slots=True, kw_only=True)
class News:
    """Hold what is new of one choice. Made on the engine's thread, then owned by the event loop."""

    token_ids: list[int]
    text: str = ""
    logprobs: list[Logprob] | None = None
    finish: Literal["stop", "length"] | None = None
    stop_token: int | None = None

    def add(self, later: News) -> None:
        """Take what came after."""
        self.token_ids += later.token_ids
        self.text += later.text
        if later.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *later.logprobs]
        self.finish, self.stop_token = later.finish, later.stop_token


class Stream:
    """Join the steps that pass while nobody waits to one event. Everything here happens on the event loop."""

    __slots__ = ("_cached", "_error", "_final", "_made", "_name", "_news", "_open", "_pending", "_prompt_tokens")

    def __init__(self, *, choices: int, prompt_tokens: int, final: bool, name: Callable[[int], str]) -> None:
        """Take the number of choices; ``final`` holds all back to the end; ``name`` gives a token's text."""
        self._open = choices
        self._prompt_tokens = prompt_tokens
        self._final = final
        self._name = name
        self._made = 0
        self._cached = 0
        self._pending: dict[int, News] = {}
        self._news = asyncio.Event()
        self._error: TrunnionError | None = None

    def put(self, index: int, news: News, cached_tokens: int) -> None:
        """Take what is new of a choice."""
        self._made += len(news.token_ids)
        self._cached = max(self._cached, cached_tokens if index == 0 else 0)
        if (held := self._pending.get(index)) is None:
            self._pending[index] = news
        else:
            held.add(news)
        self._open -= news.finish is not None
        if not self._final or not self._open:
            self._news.set()

    def fail(self, error: TrunnionError) -> None:
        """End the stream with an error, unless it has one already."""
        self._error = self._error or error
        self._news.set()

    async def next(self) -> GenerateEvent:
        """Wait for what is new and return it. Raises the error that the stream was ended with."""
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            raise self._error
        pending, self._pending = self._pending, {}
        usage = None
        if not self._open:
            usage = Usage(prompt_tokens=self._prompt_tokens, completion_tokens=self._made, cached_tokens=self._cached)
        return GenerateEvent(choices=tuple(self._delta(i, pending[i]) for i in sorted(pending)), usage=usage)

    def _delta(self, index: int, news: News) -> ChoiceDelta:
        return ChoiceDelta(
            index=index,
            text=news.text,
            token_ids=news.token_ids,
            logprobs=None if news.logprobs is None else self._logprobs(news.token_ids, news.logprobs),
            finish_reason=news.finish,
            stop_reason=news.stop_token,
        )

    def _logprobs(self, tokens: Sequence[int], records: Sequence[Logprob]) -> tuple[TokenLogprob, ...]:
        return tuple(
            TokenLogprob(
                token_id=token,
                token=self._name(token),
                logprob=record.value,
                top=tuple(TokenLogprob(token_id=i, token=self._name(i), logprob=v) for i, v in record.top),
            )
            for token, record in zip(tokens, records, strict=True)
        )
