"""Run the model on a thread of its own: continuous batching, one ``llama_decode`` per step for all sequences."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from trunnion.errors import Cancelled, EngineDead, InternalError, TrunnionError

from ._llama import Context, Model
from ._sampler import Scratch
from .choice import Choice
from .schedule import Piece, Schedule
from .stream import News, Stream

_NO_ROOM: Final = 1
_DEAD: Final = "the llama.cpp engine died: {}; build a new one from its spec"
Post = tuple[Stream, int, News, int]


class Worker:
    """Own the context. Commands come from the event loop; each step tells it the news with one call."""

    def __init__(
        self,
        model: Model,
        context: Context,
        schedule: Schedule,
        *,
        adapter_handle: Callable[[int | None], Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Take what to run; ``adapter_handle`` gives the library's adapter for a key, None for the base model."""
        self._context = context
        self._schedule = schedule
        self._adapter_handle = adapter_handle
        self._loop = loop
        self._scratch = Scratch(model.size)
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._death: BaseException | None = None
        self.snapshot = (0, 0, 0.0)
        self._thread = threading.Thread(target=self._run, name="trunnion-llamacpp", daemon=True)
        self._thread.start()
        atexit.register(self.stop)  # the library must not be torn down under a step

    # Called on the event loop.

    @property
    def dead(self) -> EngineDead | None:
        """Return what to raise once the thread ended by itself; None while all is well."""
        if self._death is None:
            return None
        error = EngineDead(_DEAD.format(f"{type(self._death).__name__}: {self._death}"))
        error.__cause__ = self._death
        return error

    def submit(self, choices: list[Choice]) -> None:
        """Take the choices of one request; their samplers are the worker's to free from now on."""
        self._command(lambda: self._take(choices), or_else=lambda: self._refuse(choices))

    def _refuse(self, choices: list[Choice]) -> None:
        for choice in choices:
            choice.sampler.close()
        choices[0].stream.fail(self._ended())

    def give_up(self, choices: list[Choice]) -> None:
        """Drop what has not ended of these, before the next step."""
        for choice in choices:
            choice.given_up = True
        self._command(lambda: None)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the thread between two steps. Raises what it raises, or :class:`EngineDead`."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - the one who waits gets it
                future.set_exception(error)

        self._command(run, or_else=lambda: future.set_exception(self._ended()))
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """End the thread after its step, and free the context; requests in flight raise Cancelled. Blocking."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        atexit.unregister(self.stop)

    def _command(self, command: Callable[[], None], or_else: Callable[[], None] = lambda: None) -> None:
        with self._wake:
            alive = not self._stopping and self._death is None
            if alive:
                self._commands.append(command)
                self._wake.notify()
        if not alive:
            or_else()

    def _ended(self) -> TrunnionError:
        return self.dead or Cancelled("the engine was stopped")

    # Called by the thread.

    def _run(self) -> None:
        try:
            while self._wait():
                self._step()
        except BaseException as error:  # noqa: BLE001 - whatever it is, everybody who waits is told
            with self._wake:
                self._death = error
        with self._wake:
            self._stopping = True
            commands = list(self._commands)
        for command in commands:  # calls get their answer, requests join the ones that are ended
            command()
        streams = {}
        for choice in self._schedule.clear():
            streams[id(choice.stream)] = choice.stream
            choice.close()
        self._context.close()
        for stream in streams.values():
            self._tell(stream.fail, self._ended())
        self.snapshot = (0, 0, 0.0)

    def _wait(self) -> bool:
        """Run commands, and wait for some where there is nothing else to do; return False to end."""
        while True:
            with self._wake:
                while not (self._commands or self._stopping or self._schedule):
                    self._wake.wait()
                if self._stopping:
                    return False
                commands = list(self._commands)
                self._commands.clear()
            for command in commands:
                command()
            for choice in self._schedule.remove_given_up():
                choice.close()
            self._note()
            if self._schedule:
                return True

    def _take(self, choices: list[Choice]) -> None:
        first, *others = choices
        first.later = others  # they begin with its prompt, which the cache will hold
        self._schedule.add(first)

    def _note(self) -> None:
        schedule = self._schedule
        self.snapshot = (schedule.running, schedule.waiting, schedule.cells.usage)

    def _step(self) -> None:
        schedule = self._schedule
        schedule.admit()
        if not schedule.running:
            raise InternalError("the cache has no room for the first request that waits")  # pragma: no cover
        key, pieces = schedule.next_step()
        if not pieces:
            return
        self._context.use_adapter(self._adapter_handle(key))
        code = self._context.decode([(p.slot.sequence, len(p.slot.tokens), p.tokens, p.last) for p in pieces])
        if code == _NO_ROOM and schedule.interrupt_last():
            return
        if code:
            raise InternalError(f"llama_decode failed with code {code}")
        posts: list[Post] = []
        at = -1
        for piece in pieces:
            at += len(piece.tokens)
            piece.slot.tokens += piece.tokens
            if piece.last:
                self._draw(piece, at, posts)
        if posts:
            self._tell(_deliver, posts)
        self._note()

    def _draw(self, piece: Piece, at: int, posts: list[Post]) -> None:
        choice = piece.choice
        later, choice.later = choice.later, []
        for other in later:
            self._schedule.add(other)
        try:
            ended = choice.step(self._context.logits(at), self._scratch)
        except Exception as error:  # noqa: BLE001 - one request fails, not the engine
            failure = InternalError(f"sampling failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._tell(choice.stream.fail, failure)
            choice.given_up = True
            return
        if (news := choice.take_news()) is not None:
            posts.append((choice.stream, choice.index, news, choice.cached_tokens))
        if ended:
            self._schedule.end(choice)
            choice.close()

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop was closed without stop(); nobody is left to be told
            self._stopping = True


def _deliver(posts: list[Post]) -> None:
    for stream, index, news, cached in posts:
        stream.put(index, news, cached)
