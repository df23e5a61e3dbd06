"""Read lines and Ctrl-C from stdin while an answer streams.

On a terminal Ctrl-C is made an ordinary end of line for the length of the session: as a signal it would reach the
engine's own processes too, and stop the engine instead of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CTRL_C: Final = b"\x03"


class ChatInput:
    """Hand out lines (None at the end of input), and set ``interrupted`` on Ctrl-C."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.interrupted = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Read on a daemon thread, which nobody has to wait for."""
        threading.Thread(target=self._read, name="trunnion-stdin", daemon=True).start()

    def _read(self) -> None:
        rest = b""
        with contextlib.suppress(RuntimeError, OSError):  # the loop, or the terminal, is gone
            while data := os.read(0, 4096):
                rest += data
                if _CTRL_C in rest:
                    rest = rest.rpartition(_CTRL_C)[2]
                    self._loop.call_soon_threadsafe(self.interrupted.set)
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    self._put(line)
            if rest:
                self._put(rest)
            self._loop.call_soon_threadsafe(self.lines.put_nowait, None)

    def _put(self, line: bytes) -> None:
        self._loop.call_soon_threadsafe(self.lines.put_nowait, line.decode("utf-8", "replace").rstrip("\r"))


@contextmanager
def terminal_keys() -> Iterator[None]:
    """Make Ctrl-C end a line instead of raising a signal, and put the terminal back in the end."""
    if not sys.stdin.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(0)
    made = termios.tcgetattr(0)
    made[6][termios.VINTR] = bytes([os.fpathconf(0, "PC_VDISABLE")])
    made[6][termios.VEOL] = _CTRL_C
    termios.tcsetattr(0, termios.TCSADRAIN, made)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
