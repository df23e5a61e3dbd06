"""Send the events of one request through its deadline and its transducers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from operator import attrgetter
from typing import Final

from .errors import DeadlineExceeded, InternalError, TrunnionError
from .events import ChoiceDelta, GenerateEvent, Usage
from .preparation import Prepared
from .requests import TokensPrompt
from .stage import Transducer

_DONE: Final = attrgetter("done")


class _Alarm:
    """Cancel the task that waits for the engine once the time is up: one timer per request, none per event."""

    __slots__ = ("_rung", "waiting")

    def __init__(self) -> None:
        self.waiting: asyncio.Task[object] | None = None
        self._rung = False

    def rung(self) -> bool:
        """Tell whether the time is up."""
        return self._rung

    def ring(self) -> None:
        """Cancel whoever waits; if nobody does, the next to come finds it rung."""
        self._rung = True
        if self.waiting is not None:
            self.waiting.cancel()


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the request was finished", param="deadline")


async def until(events: AsyncGenerator[GenerateEvent, None], deadline: float) -> AsyncGenerator[GenerateEvent, None]:
    """Pass events on until the deadline (seconds since the epoch), then abort the engine's generator.

    Raises:
        DeadlineExceeded: The deadline passed first.
    """
    alarm = _Alarm()
    timer = asyncio.get_running_loop().call_later(deadline - time.time(), alarm.ring)
    try:
        async with aclosing(events):
            while True:
                if alarm.rung() or time.time() >= deadline:  # an engine that never suspends starves the timer
                    raise _too_late()
                event = await _next(events, alarm)
                if event is None:
                    return
                yield event
    finally:
        timer.cancel()


async def _next(events: AsyncGenerator[GenerateEvent, None], alarm: _Alarm) -> GenerateEvent | None:
    """Wait for one event. The alarm's cancellation becomes DeadlineExceeded; anyone else's goes through."""
    task = asyncio.current_task()
    if alarm.rung() or task is None:
        raise _too_late()
    before = task.cancelling()
    alarm.waiting = task
    try:
        event = await events.__anext__()
    except StopAsyncIteration:
        return None
    except asyncio.CancelledError as error:
        if alarm.rung() and task.uncancel() <= before:
            raise _too_late() from error
        raise
    except Exception as error:
        if alarm.rung():
            task.uncancel()
            raise _too_late() from error  # what the engine raised because it was aborted
        raise
    finally:
        alarm.waiting = None
    if alarm.rung():  # the engine swallowed the cancellation
        task.uncancel()
        raise _too_late()
    return event


async def transduce(
    events: AsyncGenerator[GenerateEvent, None], prepared: Prepared
) -> AsyncGenerator[GenerateEvent, None]:
    """Yield what the transducers make of the events.

    The terminal event is held until every transducer was flushed, and takes along what they flush, so that usage is
    on the very last event. Once a transducer is done the engine is closed, which frees its slot, and the terminal
    event is made here if no transducer made one: prompt tokens as told or sent, completion tokens as seen.
    """
    transducers = prepared.transducers
    ending = _Ending()
    completion_tokens = 0
    prompt_tokens: int | None = None
    usage: Usage | None = None
    ended_early = False
    async with aclosing(events):
        async for event in events:
            for choice in event.choices:
                completion_tokens += len(choice.token_ids)
            usage = event.usage
            if event.prompt_tokens is not None:
                prompt_tokens = event.prompt_tokens
            for out in ending.passing(_feed(transducers, (event,))):
                yield out
            if ending.event is None and any(map(_DONE, transducers)):
                ended_early = True
                break
    for out in ending.passing(_finish(transducers)):
        yield out
    if ending.event is not None:
        yield ending.event
    elif usage is not None:  # a transducer swallowed the event it was on
        yield GenerateEvent(usage=usage)
    elif ended_early:
        prompt = prepared.request.prompt
        if prompt_tokens is None:
            prompt_tokens = len(prompt.token_ids) if isinstance(prompt, TokensPrompt) else 0
        yield GenerateEvent(usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens))


class _Ending:
    """Hold the terminal event back, and join to it whatever comes after."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event: GenerateEvent | None = None

    def passing(self, events: Sequence[GenerateEvent]) -> Sequence[GenerateEvent]:
        """Return the events that may go out now."""
        if self.event is None and len(events) == 1 and events[0].usage is None:
            return events  # nearly always: nothing to hold back, nothing to join
        passed = []
        for event in events:
            if self.event is not None:
                self.event = _merged(self.event, event)
            elif event.usage is not None:
                self.event = event
            else:
                passed.append(event)
        return passed


def _feed(transducers: Sequence[Transducer], events: Sequence[GenerateEvent]) -> Sequence[GenerateEvent]:
    for transducer in transducers:
        try:
            if len(events) == 1:
                events = transducer.feed(events[0])
            else:
                events = [out for event in events for out in transducer.feed(event)]
        except TrunnionError:
            raise
        except Exception as error:
            raise _stage_failure(transducer, error) from error
    return events


def _finish(transducers: Sequence[Transducer]) -> list[GenerateEvent]:
    """Flush each transducer through those behind it."""
    flushed: list[GenerateEvent] = []
    for index, transducer in enumerate(transducers):
        try:
            rest = transducer.finish()
        except TrunnionError:
            raise
        except Exception as error:
            raise _stage_failure(transducer, error) from error
        if rest:
            flushed.extend(_feed(transducers[index + 1 :], rest))
    return flushed


def _stage_failure(transducer: Transducer, error: Exception) -> InternalError:
    kind = type(transducer)
    return InternalError(f"stream stage {kind.__module__}.{kind.__qualname__} raised {type(error).__name__}: {error}")


def _merged(first: GenerateEvent, second: GenerateEvent) -> GenerateEvent:
    """Return one event for two that follow each other: deltas of a choice joined, the last usage kept."""
    choices = {choice.index: choice for choice in first.choices}
    for delta in second.choices:
        before = choices.get(delta.index)
        choices[delta.index] = delta if before is None else _joined(before, delta)
    return GenerateEvent(
        choices=tuple(choices.values()),
        usage=second.usage or first.usage,
        prompt_logprobs=first.prompt_logprobs if second.prompt_logprobs is None else second.prompt_logprobs,
        handoff=first.handoff if second.handoff is None else second.handoff,
    )


def _joined(first: ChoiceDelta, second: ChoiceDelta) -> ChoiceDelta:
    logprobs = first.logprobs
    if second.logprobs is not None:
        logprobs = (*(first.logprobs or ()), *second.logprobs)
    ends = second if second.finish_reason is not None else first
    return replace(
        first,
        text=first.text + second.text,
        token_ids=(*first.token_ids, *second.token_ids),
        reasoning=first.reasoning + second.reasoning,
        tool_calls=first.tool_calls + second.tool_calls,
        logprobs=logprobs,
        finish_reason=ends.finish_reason,
        stop_reason=ends.stop_reason,
    )
