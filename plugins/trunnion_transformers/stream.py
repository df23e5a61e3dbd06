"""Collect the outputs of one request on the event loop, and turn them into events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trunnion.errors import TrunnionError
from trunnion.events import ChoiceDelta, GenerateEvent, TokenLogprob, Usage

from .plan import Plan


class Choice:
    """Hold the tokens of one choice that have not gone out yet, and count those that have."""

    __slots__ = ("finished", "index", "new", "plan", "sent", "told")

    def __init__(self, index: int, plan: Plan) -> None:
        self.index = index
        self.plan = plan
        self.new: list[int] = []
        self.sent = 0
        self.finished = False
        self.told = False


class Stream:
    """Take what the engine's thread says of a request's choices, and give events to the one who waits.

    Everything here happens on the event loop. Steps that pass while nobody waits are joined to one event.
    """

    __slots__ = ("_error", "_final", "_name", "_news", "_open", "_waiter", "choices")

    def __init__(self, plans: Sequence[Plan], *, name: Callable[[int], str]) -> None:
        """Take a plan per choice; ``name`` gives the text of a token id, for logprobs."""
        self.choices = [Choice(index, plan) for index, plan in enumerate(plans)]
        self._open = len(self.choices)
        self._final = plans[0].final
        self._name = name
        self._news = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: TrunnionError | None = None

    @property
    def finished(self) -> bool:
        """Tell whether every choice has ended."""
        return not self._open

    def put(self, index: int, tokens: list[int], *, finished: bool) -> None:
        """Take new tokens of a choice; the list is the stream's from now on."""
        choice = self.choices[index]
        if choice.new:
            choice.new += tokens
        else:
            choice.new = tokens
        if finished and not choice.finished:
            choice.finished = True
            self._open -= 1
        if not self._final or not self._open:
            self._wake()

    def fail(self, error: TrunnionError) -> None:
        """End the stream with an error, unless it has one already."""
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        self._news = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def next(self) -> GenerateEvent:
        """Wait for what is new and return it. Raises the error that the stream was ended with."""
        if not self._news:
            # A bare future: an asyncio.Event costs as much as all the rest of this module, with every token.
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._news = False
        if self._error is not None:
            raise self._error
        deltas = [delta for choice in self.choices if (delta := self._delta(choice)) is not None]
        return GenerateEvent(choices=tuple(deltas), usage=None if self._open else self._usage())

    def _delta(self, choice: Choice) -> ChoiceDelta | None:
        new, plan = choice.new, choice.plan
        ends = choice.finished and not choice.told
        if not new and not ends:
            return None
        logprobs = None
        if plan.logprobs is not None:
            records = plan.records[choice.sent : choice.sent + len(new)]
            logprobs = tuple(self._logprob(token, record) for token, record in zip(new, records, strict=True))
        choice.new = []
        choice.sent += len(new)
        if not ends:
            return ChoiceDelta(index=choice.index, token_ids=new, logprobs=logprobs)
        choice.told = True
        last = new[-1] if new else None
        stopped = last in plan.ends
        return ChoiceDelta(
            index=choice.index,
            token_ids=new,
            logprobs=logprobs,
            finish_reason="stop" if stopped else "length",
            stop_reason=last if stopped and last in plan.stop_token_ids else None,
        )

    def _logprob(self, token: int, record: tuple[float, list[int], list[float]]) -> TokenLogprob:
        logprob, ids, values = record
        return TokenLogprob(
            token_id=token,
            token=self._name(token),
            logprob=logprob,
            top=tuple(
                TokenLogprob(token_id=i, token=self._name(i), logprob=v) for i, v in zip(ids, values, strict=True)
            ),
        )

    def _usage(self) -> Usage:
        first = self.choices[0].plan
        return Usage(
            prompt_tokens=first.prompt_tokens,
            completion_tokens=sum(choice.sent for choice in self.choices),
            cached_tokens=first.cached_tokens or 0,
        )
