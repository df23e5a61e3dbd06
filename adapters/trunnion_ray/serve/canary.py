"""Find out whether an engine still answers: ask it for one token now and then.

A process that is stopped (SIGSTOP), or hangs in a driver, lives: nothing but a request that goes unanswered shows it.
An engine under load answers late, so it counts as dead only if it made no step either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from trunnion.engine import Embeds
from trunnion.errors import TrunnionError
from trunnion.pipeline import Pipeline
from trunnion.requests import GenerateRequest, Prompt, SamplingParams, TextPrompt, TokensPrompt

_log = logging.getLogger("trunnion.serve")

_LATE: Final = 5.0
"""Seconds that a time limit may be late before the process itself must have been stopped."""
_PROMPTS: Final[dict[str, Prompt]] = {"token_ids": TokensPrompt(token_ids=(1,)), "text": TextPrompt(text="1")}


class Canary:
    """Ask the engine of one pipeline. It goes round the hooks, whose limits are for callers."""

    def __init__(self, pipeline: Pipeline, *, period: float, timeout: float, dead: Callable[[str], None]) -> None:
        """Take the seconds between requests and those one may take; ``dead`` is told why, once."""
        self._pipeline = pipeline
        self._period = period
        self._timeout = timeout
        self._dead = dead
        self._task: asyncio.Task[None] | None = None
        capabilities = pipeline.info.capabilities
        self._prompt = next((_PROMPTS[kind] for kind in capabilities.prompts if kind in _PROMPTS), None)
        self._embeds = "embeds/1" in capabilities.protocols
        self._remote = "relays/1" in capabilities.protocols

    def start(self) -> None:
        """Begin, unless the engine only passes requests on, or takes no prompt that needs no template."""
        if not self._remote and self._prompt is not None:
            self._task = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            before, loop = self._steps(), asyncio.get_running_loop()
            began = loop.time()
            try:
                async with asyncio.timeout(self._timeout):
                    await self._ask()
            except TimeoutError:
                if loop.time() - began > self._timeout + _LATE:
                    continue  # it was this process that stood still
                if self._stands_still(before):
                    self._dead(f"it neither answered nor made a step in {self._timeout:g} s")
                    return
            except TrunnionError as error:
                _log.debug("the canary was refused: %s", error)  # which is an answer, too

    async def _ask(self) -> None:
        engine = self._pipeline.engine
        assert self._prompt is not None
        if self._embeds and isinstance(engine, Embeds):
            await engine.embed([self._prompt])
            return
        sampling = SamplingParams(max_tokens=1, temperature=0.0)
        request = GenerateRequest(prompt=self._prompt, sampling=sampling, delivery="final")
        async with aclosing(engine.generate(request)) as events:
            async for _ in events:
                pass

    def _steps(self) -> int | None:
        load = self._pipeline.load()
        return None if load is None else load.steps

    def _stands_still(self, before: int | None) -> bool:
        """Tell whether nothing happened since; where steps are not counted, whether there is nothing else to do."""
        if before is not None:
            return self._steps() == before
        load = self._pipeline.load()
        return load is not None and load.running + load.waiting <= 1
