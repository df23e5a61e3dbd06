"""Merge the streams of several prompts into one, as /v1/completions answers a list of prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from trunnion.errors import InternalError
from trunnion.events import GenerateEvent, Usage

_QUEUE: Final = 64
"""Events that may wait for a slow client before the engines' streams are held back."""

_Item = tuple[int, GenerateEvent | None, Exception | None]


async def merge(
    sources: Sequence[AsyncGenerator[GenerateEvent, None]], width: int
) -> AsyncGenerator[GenerateEvent, None]:
    """Yield the events of all sources as they come; choice ``i`` of source ``s`` becomes ``s * width + i``.

    Usage is summed and comes last. The first failure ends all of them.
    """
    queue: asyncio.Queue[_Item] = asyncio.Queue(_QUEUE)
    tasks = [asyncio.create_task(_pump(index, source, queue)) for index, source in enumerate(sources)]
    usages: list[Usage] = []
    running = len(tasks)
    try:
        while running:
            index, event, failure = await queue.get()
            if failure is not None:
                raise failure
            if event is None:
                running -= 1
                continue
            if event.usage is not None:
                usages.append(event.usage)
            if event.choices:
                choices = tuple(replace(c, index=index * width + c.index) for c in event.choices)
                yield replace(event, choices=choices, usage=None)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    yield GenerateEvent(
        usage=Usage(
            prompt_tokens=sum(u.prompt_tokens for u in usages),
            completion_tokens=sum(u.completion_tokens for u in usages),
            cached_tokens=sum(u.cached_tokens for u in usages),
            reasoning_tokens=sum(u.reasoning_tokens for u in usages),
        )
    )


async def _pump(index: int, source: AsyncGenerator[GenerateEvent, None], queue: asyncio.Queue[_Item]) -> None:
    """Run one source to its end. It is closed by the task that runs it, as the engine's contract asks."""
    ended = False
    try:
        async with aclosing(source):
            async for event in source:
                ended = ended or event.usage is not None
                await queue.put((index, event, None))
        if not ended:
            msg = "the engine's stream ended without its terminal event; the answer may be cut short"
            raise InternalError(msg)  # noqa: TRY301 - travels the same way as the engine's own errors
    except Exception as error:  # noqa: BLE001 - raised again by the task that reads the queue
        await queue.put((index, None, error))
    else:
        await queue.put((index, None, None))
