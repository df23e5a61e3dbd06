"""Run the lines of a batch file: a bounded number in flight, results on disk as they come."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import msgspec

from trunnion import EngineSpec, get_registry
from trunnion.errors import InvalidArgument
from trunnion_batch.account import Account
from trunnion_batch.journal import Journal
from trunnion_batch.keys import KEY_BYTES
from trunnion_http import HTTPSettings, create_app
from trunnion_http.batches.ask import ask
from trunnion_http.batches.lines import BatchLine, LineError, error_line, fingerprint, parse_line, result_line

from .model import SupervisedModel

_FLUSH_SECONDS: Final = 2.0
_OK: Final = 200
_NEVER: Final = 1e9


class LineSink(Protocol):
    """Take result lines, without their line breaks."""

    def write(self, line: bytes) -> None:
        """Write one line."""
        ...

    def flush(self) -> None:
        """Let others see what was written."""
        ...


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    """Read of a response what is counted."""

    usage: _Usage | None = None


class _Error(msgspec.Struct):
    message: str = ""
    code: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


_usage: Final = msgspec.json.Decoder(_Body)
_error: Final = msgspec.json.Decoder(_ErrorBody)


class BatchFileRun:
    """Run one batch file.

    Attributes:
        n_in: Lines read so far; empty ones do not count.
        stopped: Whether :meth:`drain` left lines unread.
        passing: Lines that failed in a way that may pass.
    """

    def __init__(
        self,
        model: SupervisedModel,
        spec: EngineSpec,
        results: LineSink,
        errors: LineSink,
        account: Account,
        *,
        concurrency: int,
        strict: bool = False,
        journal: Journal | None = None,
    ) -> None:
        """Take what one run needs.

        Args:
            model: Answers; lines name it, or one of its adapters.
            spec: The engine, which is part of what a line's answer is remembered by.
            results: Takes the lines that were answered.
            errors: Takes those that failed, and those that are no requests.
            account: Counts every line; may end the run.
            concurrency: Lines in flight.
            strict: Whether the first line that is no request ends the run.
            journal: Remembers what was answered.
        """
        self.n_in = 0
        self.stopped = False
        self.passing = 0
        self._app = create_app([model], HTTPSettings(disconnect_interval=_NEVER, max_body_bytes=1 << 30))
        self._model = model
        self._results = results
        self._errors = errors
        self._account = account
        self._strict = strict
        self._journal = journal
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: set[int] = set()
        self._failure: asyncio.Future[None] | None = None
        self._drain = asyncio.Event()
        version = get_registry().engine(spec.engine).semantic_version
        identity = msgspec.json.encode([1, spec.engine, version, spec.model, model.name])
        self._identity = hashlib.blake2b(identity, digest_size=KEY_BYTES)

    @property
    def in_flight(self) -> int:
        """Return the lines that were begun and are not answered."""
        return len(self._tasks)

    def drain(self) -> None:
        """Begin no further lines; :meth:`run` returns when those in flight are written. On the loop of the run."""
        self._drain.set()

    async def run(self, chunks: AsyncIterator[list[tuple[int, bytes]]]) -> None:
        """Run every line, given with its number from 1.

        Raises:
            InvalidArgument: A line is no request, and ``strict`` was asked for.
            TrunnionError: The engine stays dead, too many lines failed, or results cannot be remembered.
        """
        self._failure = asyncio.get_running_loop().create_future()
        feeder = asyncio.ensure_future(self._feed(chunks))
        flusher = asyncio.ensure_future(self._flush())
        drain = asyncio.ensure_future(self._drain.wait())
        try:
            begun: set[asyncio.Future[Any]] = {feeder, drain, flusher, self._failure}
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            if drain.done() and not feeder.done():
                self.stopped = True
                feeder.cancel()
                await asyncio.wait({feeder})
            for task in (feeder, flusher, self._failure):
                if task.done() and not task.cancelled():
                    task.result()
            while self._tasks and not self._failure.done():
                await asyncio.wait({*self._tasks, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
        finally:
            left: list[asyncio.Future[Any]] = [feeder, flusher, drain, *self._tasks]
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self._failure.cancel()
            self._results.flush()
            self._errors.flush()

    async def _feed(self, chunks: AsyncIterator[list[tuple[int, bytes]]]) -> None:
        async for chunk in chunks:
            for number, data in chunk:
                await self._slots.acquire()
                task = asyncio.ensure_future(self._one(number, data))
                self._tasks.add(task)
                task.add_done_callback(self._done)
                self.n_in += 1

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _one(self, number: int, data: bytes) -> None:
        try:
            line = parse_line(data, number)
            mark = fingerprint(line.custom_id)
            if mark in self._seen:
                raise LineError(  # noqa: TRY301 - told like every other fault of a line
                    number,
                    f"custom_id {line.custom_id!r} was used by a line before; each needs one of its own",
                    code="duplicate_custom_id",
                    custom_id=line.custom_id,
                )
            self._seen.add(mark)
        except LineError as error:
            if self._strict:
                raise InvalidArgument(f"{error} (--strict ends the run here)", param="input") from error
            self._errors.write(error_line(error))
            self._count(error.code, error.fault, number)
            return
        await self._answer(line)

    async def _answer(self, line: BatchLine) -> None:
        key = self._key(line)
        known = None if self._journal is None else self._journal.take_packed(key)
        request_id = key.hex()
        if known is not None:
            status, body, passes = _OK, known, False
        else:
            reply = await ask(self._app, line, request_id)
            status, body, passes = reply.status, reply.body, reply.retryable
            if self._model.gone is not None:
                raise self._model.gone
            if status == _OK and self._journal is not None:
                self._journal.add_packed(key, body)
        written = result_line(line, status, body, request_id)
        if status == _OK:
            self._results.write(written)
            usage = _usage.decode(body).usage or _Usage()
            details = usage.prompt_tokens_details
            columns = {
                "num_input_tokens": usage.prompt_tokens,
                "num_generated_tokens": usage.completion_tokens,
                "usage": {"cached_tokens": 0 if details is None else details.cached_tokens},
            }
            self._account.add(columns, replayed=known is not None)
        else:
            self._errors.write(written)
            self.passing += passes
            told = _error.decode(body).error
            self._count(told.code or str(status), f"{line.custom_id}: {told.message}", line.number)

    def _count(self, code: str, message: str, number: int) -> None:
        self._account.add({"error": {"code": code, "message": message}}, number=number)

    def _key(self, line: BatchLine) -> bytes:
        digest = self._identity.copy()
        digest.update(msgspec.msgpack.encode((line.custom_id, line.url, line.body)))
        return digest.digest()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._results.flush()
            self._errors.flush()
            if self._journal is not None:
                await asyncio.to_thread(self._journal.flush)
