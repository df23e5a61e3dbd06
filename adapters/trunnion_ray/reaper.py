"""Take an engine's own processes down with the replica (of a batch or a service) that started them.

A replica that is stopped stops its engine. One that is killed (out of memory, a forced stop, a crash) cannot, and an
engine's processes would stay behind with their memory and their GPU. So a small process of its own watches the
replica and, once that is gone, kills what the replica said it had started. Linux only; elsewhere it does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_PERIOD: Final = 1.0
"""Seconds between looks at the replica's descendants while its engine starts."""

# Reads "pid:starttime" lists, one per line, the last one counts. The start time keeps it from killing a process that
# was given the number of one long gone. A child that forks may hold the pipe open, so the parent's death is polled.
_WATCHER: Final = r"""
import os, select, signal, sys
parent, known, buffer, open_ = int(sys.argv[1]), [], b"", True
def start(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return None
def listen(timeout):
    global known, buffer, open_
    if not select.select([0] if open_ else [], [], [], timeout)[0]:
        return False
    data = os.read(0, 65536)
    open_ = bool(data)
    buffer += data
    *lines, buffer = buffer.split(b"\n")
    for line in lines:
        if line == b"done":
            sys.exit(0)
        known = [item.split(":") for item in line.decode().split()]
    return open_
while os.getppid() == parent:
    listen(0.5)
while listen(0):  # what it said before it died, even if it died before this process looked
    pass
for pid, begun in reversed(known):
    if start(pid) == begun:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
"""


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return process ids and start times (in ticks since boot, as text) of all that descend from ``pid``."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append((int(entry.name), fields[19].decode()))
    found: list[tuple[int, str]] = []
    queue = [pid]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.append(child)
            queue.append(child[0])
    return found


class Reaper:
    """Watch this process and what it starts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._told: list[tuple[int, str]] = []

    def start(self) -> None:
        """Start the watcher, and follow this process's descendants until :meth:`settle`."""
        if not sys.platform.startswith("linux"):
            return
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            [sys.executable, "-I", "-S", "-c", _WATCHER, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._follower = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            self.refresh()
            await asyncio.sleep(_PERIOD)

    def settle(self) -> None:
        """Stop following: the engine has started; from here on :meth:`refresh` is called now and then."""
        if self._follower is not None:
            self._follower.cancel()
            self._follower = None
        self.refresh()

    def refresh(self) -> None:
        """Tell the watcher what descends from this process now."""
        if self._process is None:
            return
        now = [entry for entry in descendants(os.getpid()) if entry[0] != self._process.pid]
        if now != self._told:
            self._told = now
            self._say(" ".join(f"{pid}:{begun}" for pid, begun in now).encode())

    def close(self) -> None:
        """End the watcher: the engine was stopped in good order. Idempotent."""
        if self._follower is not None:
            self._follower.cancel()
            self._follower = None
        if self._process is not None:
            self._say(b"done")
            process, self._process = self._process, None
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)

    def _say(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line + b"\n")
                self._process.stdin.flush()
