"""Run a command's coroutine so that Ctrl-C ends it cleanly, and leaves no process behind even where that fails.

The first SIGINT or SIGTERM cancels the command, which stops its engine; a second one, or a stop that takes longer
than :data:`GRACE`, ends this process and every process below it at once. A command that can finish what it has begun
says so (``Interrupts.gently``): the first SIGINT then asks for that, and only the next one counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar

from .console import say
from .state import STATE

T = TypeVar("T")
GRACE: Final = 15.0
"""Seconds a command has for its own clean-up after the first signal."""
_SAME: Final = 0.5
"""Seconds within which a second signal is the first one again, passed on by a parent in our group such as timeout."""
_TERM_SECONDS: Final = 3.0
_KILL_SECONDS: Final = 2.0


class Interrupts:
    """Count signals, and call ``action`` on the first one (by default: cancel the command).

    ``gently`` is called instead, once, where it is set and the signal is SIGINT.
    """

    def __init__(self) -> None:
        self.action: Callable[[], None] = lambda: None
        self.gently: Callable[[], None] | None = None
        self.signal = 0
        self._timer: threading.Timer | None = None
        self._first = 0.0
        self._before: dict[int, Any] = {}

    @property
    def code(self) -> int:
        """Return the exit code the signal asks for: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def drain_with(self, drain: Callable[[], None], in_flight: Callable[[], int]) -> None:
        """Let the first SIGINT call ``drain``, on the running loop, instead of ending the command."""
        loop = asyncio.get_running_loop()

        def gently() -> None:
            say(f"stopping: {in_flight()} rows in flight are finished first; Ctrl-C again gives them up")
            loop.call_soon_threadsafe(drain)

        self.gently = gently

    def install(self) -> None:
        """Take SIGINT and SIGTERM over."""
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def uninstall(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.forgive()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first and now - self._first <= _SAME:
            return
        if self.signal:
            for one in self._before:  # a third one would begin the end anew
                signal.signal(one, signal.SIG_IGN)
            end_now(self.code)
        if self.gently is not None and number == signal.SIGINT:
            gently, self.gently, self._first = self.gently, None, now
            gently()
            return
        self.signal, self._first = number, now
        self.extend(0)
        self.action()

    def extend(self, seconds: float) -> None:
        """Give the clean-up that a signal has begun :data:`GRACE` from now on, and some seconds more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(GRACE + seconds, end_now, [self.code])
        self._timer.daemon = True
        self._timer.start()

    def forgive(self) -> None:
        """Forget a signal that was answered in full, such as a stopped answer."""
        self.signal, self._first = 0, 0.0
        if self._timer is not None:
            self._timer.cancel()


def run_async(command: Callable[[Interrupts], Coroutine[Any, Any, T]]) -> T:
    """Run a command on an event loop of its own and return its result. After a signal the process ends here."""
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    interrupts = Interrupts()
    task = loop.create_task(command(interrupts))

    def cancel() -> None:
        loop.call_soon_threadsafe(task.cancel)

    interrupts.action = cancel
    interrupts.install()
    try:
        try:
            result: T = loop.run_until_complete(task)
        finally:
            _close(loop, interrupts)
    finally:
        interrupts.uninstall()
    return result


def _close(loop: asyncio.AbstractEventLoop, interrupts: Interrupts) -> None:
    """Cancel what is left and close the loop; after a signal, end the process instead of waiting for threads."""
    loop.run_until_complete(_cancel_rest())
    loop.run_until_complete(loop.shutdown_asyncgens())
    if interrupts.signal:
        end_now(interrupts.code)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _cancel_rest() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def end_now(code: int) -> NoReturn:
    """End this process and all below it: threads that load a model cannot be waited for."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    end_children()
    os._exit(code)


def end_children() -> None:
    """Ask every process below this one to end, then make it; from the top down.

    Who started others is to end them in order: asked at the same time as they are, it would tell at length of their
    death. So a process is asked once the one that started it is gone.
    """
    family = descendants()
    asked: set[int] = set()
    deadline = time.monotonic() + _TERM_SECONDS
    while (alive := [pid for pid in family if _alive(pid)]) and time.monotonic() < deadline:
        for pid in alive:
            if pid not in asked and _parent(pid) not in alive:
                asked.add(pid)
                _kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    left = [pid for pid in dict.fromkeys([*family, *descendants()]) if _alive(pid)]
    for pid in left:
        if STATE.verbose:
            say(f"note: had to kill process {pid}")
        _kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_SECONDS  # a large process takes a moment to give its memory back
    while any(map(_alive, left)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a zombie of ours is not alive
    if Path("/proc/self/stat").exists():
        return _stat(pid)[:1] not in ([], ["Z"])
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _stat(pid: int) -> list[str]:
    """Return what Linux tells of a process from its state on: state, parent...; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def descendants() -> list[int]:
    """Return the processes below this one, parents first, from Linux's /proc; elsewhere multiprocessing's alone."""
    if not Path("/proc/self/task").exists():
        known = sys.modules.get("multiprocessing")
        return [child.pid for child in known.active_children() if child.pid] if known else []
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        for task in Path(f"/proc/{queue.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = [int(pid) for pid in task.read_text(encoding="ascii").split()]
                found += children
                queue += children
    return found
