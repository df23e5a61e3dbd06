"""Send the events of one request through its deadline and its transducers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from .errors import DeadlineExceeded
from .events import GenerateEvent, Usage
from .preparation import Prepared
from .requests import TokensPrompt
from .stage import Transducer


async def until(events: AsyncGenerator[GenerateEvent, None], deadline: float) -> AsyncGenerator[GenerateEvent, None]:
    """Pass events on until the deadline (seconds since the epoch), then abort the engine's generator.

    Raises:
        DeadlineExceeded: The deadline passed first.
    """
    async with aclosing(events):
        while True:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.time())):
                    event = await anext(events, None)
            except TimeoutError as error:
                raise DeadlineExceeded(
                    "the deadline passed before the request was finished", param="deadline"
                ) from error
            if event is None:
                return
            yield event


async def transduce(
    events: AsyncGenerator[GenerateEvent, None], prepared: Prepared
) -> AsyncGenerator[GenerateEvent, None]:
    """Yield what the transducers make of the events.

    Once a transducer is done the engine is closed, which frees its slot, and the terminal event is made here if no
    transducer made one: prompt tokens as sent, completion tokens as seen.
    """
    transducers = prepared.transducers
    completion_tokens = 0
    terminal = False
    async with aclosing(events):
        async for event in events:
            completion_tokens += sum(len(choice.token_ids) for choice in event.choices)
            for out in _feed(transducers, (event,)):
                terminal = terminal or out.usage is not None
                yield out
            if not terminal and any(transducer.done for transducer in transducers):
                break
    for out in _finish(transducers):
        terminal = terminal or out.usage is not None
        yield out
    if not terminal:
        prompt = prepared.request.prompt
        prompt_tokens = len(prompt.token_ids) if isinstance(prompt, TokensPrompt) else 0
        yield GenerateEvent(usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens))


def _feed(transducers: Sequence[Transducer], events: Sequence[GenerateEvent]) -> Sequence[GenerateEvent]:
    for transducer in transducers:
        if len(events) == 1:
            events = transducer.feed(events[0])
        else:
            events = [out for event in events for out in transducer.feed(event)]
    return events


def _finish(transducers: Sequence[Transducer]) -> list[GenerateEvent]:
    """Flush each transducer through those behind it."""
    flushed: list[GenerateEvent] = []
    for index, transducer in enumerate(transducers):
        flushed.extend(_feed(transducers[index + 1 :], transducer.finish()))
    return flushed
