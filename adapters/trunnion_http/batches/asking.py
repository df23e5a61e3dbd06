"""Ask the lines of one batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from trunnion.errors import EngineDead, ModelNotFound

from .ask import Inside, Reply, ask
from .check import named_model, numbered_lines
from .lines import BatchLine, fingerprint, parse_line, result_line, undone_line
from .results import Results, count_answer
from .state import State

if TYPE_CHECKING:
    from trunnion_http.app import App
    from trunnion_http.settings import BatchSettings

_LONGEST_WAIT: Final = 30.0
_OK: Final = 200
_FULL: Final = 429
_DOWN: Final = frozenset({499, 503})
"""What a line gets when the engine is dead, or is stopped under it."""
_MOST_TRIES: Final = 3
"""Owners that may die on one line before it is set apart."""


class _Told(msgspec.Struct):
    message: str = ""
    code: str = ""


class _Failure(msgspec.Struct):
    error: _Told


_failure: Final = msgspec.json.Decoder(_Failure).decode


class LineAsker:
    """Ask lines, a bounded number at once, and hand their answers on."""

    def __init__(
        self,
        app: App,
        settings: BatchSettings,
        *,
        source: Path,
        state: State,
        number: int,
        results: Results,
        slots: asyncio.Semaphore,
        save: Callable[[], Awaitable[None]],
    ) -> None:
        """Take what asking needs.

        Args:
            app: Answers.
            settings: Limits.
            source: The batch's input.
            state: Counts what was answered, and remembers what is asked alone.
            number: Of the lease; request ids carry it.
            results: Takes the answers.
            slots: Places in flight, shared by all batches of this process.
            save: Writes the state.
        """
        self._app = app
        self._settings = settings
        self._input = source
        self._state = state
        self._number = number
        self._results = results
        self._slots = slots
        self._save = save

    async def ask_all(self, done: set[int]) -> bool:
        """Ask every line that is not done; after a death, those that it may have come from one by one.

        Returns:
            Whether all were asked; False if the server drains, once those in flight are answered.

        Raises:
            EngineDead: The engine is down.
        """
        state = self._state
        alone = self._settings.lines_in_flight if state.wary or state.trying is not None else 0
        try:
            async with asyncio.TaskGroup() as asked, aclosing(self._lines(done)) as lines:
                async for line in lines:
                    if self._app.draining:
                        return False
                    if alone:
                        alone -= 1
                        await self._ask_alone(line)
                        continue
                    if state.wary or state.trying is not None:
                        state.wary, state.trying, state.tries = False, None, 0
                        await self._save()
                    await self._slots.acquire()
                    asked.create_task(self._ask(line)).add_done_callback(lambda _: self._slots.release())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return True

    async def _lines(self, done: set[int]) -> AsyncGenerator[BatchLine, None]:
        """Yield the lines that are not done."""
        chunks = numbered_lines(self._input)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            for number, data in chunk:
                line = parse_line(data, number, (self._state.endpoint,))
                if fingerprint(line.custom_id) not in done:
                    yield line

    async def _ask_alone(self, line: BatchLine) -> None:
        """Ask a line that an owner before may have died of. What has killed so many is set apart."""
        state = self._state
        with suppress(ModelNotFound):
            handle, _ = self._app.models.resolve(named_model(line))
            await handle.check_health()  # so that no line is blamed for an engine that was dead before
        state.tries = state.tries + 1 if state.trying == line.number else 1
        state.trying = line.number
        await self._save()
        if state.tries > _MOST_TRIES:
            message = f"the engine died {_MOST_TRIES} times while this line alone was asked"
            self._results.add("errors", undone_line(line.number, line.custom_id, "engine_dead", message))
            state.failed += 1
            return
        async with self._slots:
            await self._ask(line)

    async def _ask(self, line: BatchLine) -> None:
        """Ask one line until it is answered, well or not.

        Raises:
            EngineDead: The engine is down or stops; the line has no answer.
        """
        request_id = f"{self._state.id}-{self._number}-{line.number}"
        inside = Inside(tenant=self._state.tenant, priority=self._settings.priority)
        attempt = 0
        while True:
            reply = await ask(self._app, line, request_id, inside)
            if not reply.retryable:
                break
            if reply.status in _DOWN and _told(reply).code == "engine_dead":
                self._state.wary = True  # whatever comes of it here: the next owner must know
            if reply.status != _FULL and (attempt >= self._settings.retries or self._app.draining):
                break
            attempt += 1
            await asyncio.sleep(min(_LONGEST_WAIT, reply.retry_after or 0.5 * 2 ** min(attempt, 8)))
        if reply.status in _DOWN:
            raise EngineDead(f"line {line.number} of {self._state.id} got {reply.status}: {_told(reply).message}")
        written = result_line(line, reply.status, reply.body, request_id)
        if reply.status == _OK:
            self._results.add("results", written)
            count_answer(self._state, reply.body)
        else:
            self._results.add("errors", written)
            self._state.failed += 1


def _told(reply: Reply) -> _Told:
    try:
        return _failure(reply.body).error
    except msgspec.DecodeError:
        return _Told()
