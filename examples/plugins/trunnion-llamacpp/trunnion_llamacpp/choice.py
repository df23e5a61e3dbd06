"""Follow one choice of one request: its tokens, its text, its end. For the engine's thread alone."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

from ._llama import Model
from ._sampler import Scratch, TokenSampler, logprobs_of
from .cells import Slot
from .plan import Plan
from .stream import Logprob, News, Stream


class Choice:
    """Hold one sequence from its request to its end.

    Attributes:
        tokens: Prompt and output.
        slot: Where its KV lies; None while it waits.
        key, salt: Adapter and ``cache_salt``, which part caches.
        rank: Priority, then the order of arrival.
        later: Choices of the same request that wait until this one's prompt is in the cache.
        given_up: Set once nobody wants it any more.
    """

    def __init__(
        self,
        *,
        stream: Stream,
        index: int,
        prompt: list[int],
        plan: Plan,
        sampler: TokenSampler,
        model: Model,
        with_text: bool,
        final: bool,
        key: int | None,
        salt: str | None,
        rank: tuple[int, int],
    ) -> None:
        """Take what the request asks."""
        self.stream, self.index, self.plan, self.sampler = stream, index, plan, sampler
        self.tokens = list(prompt)
        self.prompt_tokens = len(prompt)
        self.cached_tokens = 0
        self.key, self.salt, self.rank = key, salt, rank
        self.slot: Slot | None = None
        self.later: list[Choice] = []
        self.given_up = False
        self._final = final
        self._news: News | None = None
        self._decode: Callable[..., str] | None = None
        if with_text:
            self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._model = model

    @property
    def made(self) -> int:
        """Return the number of tokens made so far."""
        return len(self.tokens) - self.prompt_tokens

    def step(self, logits: Any, scratch: Scratch) -> bool:
        """Draw a token; return whether the choice ends with it."""
        plan, made = self.plan, self.made
        token = self.sampler.sample(logits, made, scratch)
        news = News(token_ids=[])
        if token is None:  # the grammar allows nothing more, not even an end
            news.finish = "stop"
        else:
            self.tokens.append(token)
            news.token_ids = [token]
            if plan.logprobs is not None:
                news.logprobs = [Logprob(*logprobs_of(logits, token, plan.logprobs))]
            if self.sampler.ends_at(token):
                news.finish = "stop"
                news.stop_token = token if token in plan.stop_token_ids else None
            elif made + 1 >= plan.max_tokens:
                news.finish = "length"
        ended = news.finish is not None
        if self._decode is not None:
            spoken = token is not None and news.finish != "stop"
            piece = (
                self._model.piece(token, special=not plan.skip_special_tokens) if spoken and token is not None else b""
            )
            news.text = self._decode(piece, ended)
        if not ended and token is not None:
            self.sampler.accept(token)
        self._add(news)
        return ended

    def _add(self, news: News) -> None:
        if self._news is None:
            self._news = news
        else:
            self._news.add(news)

    def take_news(self) -> News | None:
        """Return what is to be told now; with delivery "final" nothing before the end."""
        news = self._news
        if news is None or (self._final and news.finish is None):
            return None
        self._news = None
        return news

    def close(self) -> None:
        """Free the samplers, of the choices that still wait for this one too."""
        for choice in (self, *self.later):
            choice.sampler.close()
