"""Let one process own a batch, and another take over when that one has died.

A lease is a file with a number. Whoever creates the next number owns the batch from then on, and the file system lets
only one do so. The owner rewrites its file now and then. Others take over when it has told that it is done, when its
process is known to have died, or when its file has not changed for as long as the lease lasts, by their own clock: no
two machines' clocks are compared.

An owner that was only asleep finds the next number and stops. Until then it harms nothing: all that it writes carries
its own number.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from .disk import write_atomically, write_once

_NAME: Final = "lease-"


class _Note(msgspec.Struct, kw_only=True):
    """What a lease's file says."""

    holder: str
    machine: str
    pid: int
    started: str
    beat: int = 0
    released: bool = False


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Note).decode


class Lease:
    """Own one batch.

    Attributes:
        number: Of this lease; what its owner writes carries it.
        after_death: Whether the owner before was taken for dead.
    """

    def __init__(self, folder: Path, number: int, note: _Note, *, after_death: bool) -> None:
        self.number = number
        self.after_death = after_death
        self._folder = folder
        self._note = note

    def beat(self) -> bool:
        """Tell others that the owner lives; False if one has taken over. Blocks."""
        if max(_numbers(self._folder), default=0) != self.number:
            return False
        self._note.beat += 1
        write_atomically(self._folder / f"{_NAME}{self.number}", _encode(self._note))
        return True

    def release(self) -> None:
        """Let anyone take over at once. Blocks."""
        self._note.released = True
        with contextlib.suppress(FileNotFoundError):  # the batch is over and gone
            self.beat()


class Leases:
    """Take leases for this process.

    Args:
        seconds: How long one lasts from its owner's last sign of life.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[Path, tuple[int, bytes, float]] = {}

    def take(self, folder: Path) -> Lease | None:
        """Return the lease of a batch's folder; None if another process owns it. Blocks.

        Raises:
            FileNotFoundError: The folder is gone.
        """
        number = max(_numbers(folder), default=0)
        after_death = False
        if number:
            state = self._state(folder, number)
            if state == "held":
                return None
            after_death = state == "dead"
        note = _Note(holder=uuid.uuid4().hex, machine=_machine(), pid=os.getpid(), started=_started(os.getpid()))
        self._seen.pop(folder, None)
        if not write_once(folder / f"{_NAME}{number + 1}", _encode(note)):
            return None
        return Lease(folder, number + 1, note, after_death=after_death)

    def forget(self, folder: Path) -> None:
        """Forget what was seen of a batch that is over."""
        self._seen.pop(folder, None)

    def _state(self, folder: Path, number: int) -> str:
        try:
            data = (folder / f"{_NAME}{number}").read_bytes()
        except FileNotFoundError:
            return "held"  # the batch is being put away
        seen = self._seen.get(folder)
        now = time.monotonic()
        if seen is None or seen[:2] != (number, data):
            self._seen[folder] = (number, data, now)
        elif now - seen[2] > self._seconds:
            return "dead"
        try:
            note = _decode(data)
        except msgspec.DecodeError:
            return "held"  # its owner has just created it
        if note.released:
            return "released"
        if note.machine and note.machine == _machine() and note.started != _started(note.pid):
            return "dead"
        return "held"


def remove_old_leases(folder: Path) -> None:
    """Remove all leases of a batch that is over but the last, by which owners that slept find out. Blocks."""
    for number in sorted(_numbers(folder))[:-1]:
        (folder / f"{_NAME}{number}").unlink(missing_ok=True)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of the leases there are. Raises :class:`FileNotFoundError`."""
    names = (path.name.removeprefix(_NAME) for path in folder.iterdir() if path.name.startswith(_NAME))
    return [int(name) for name in names if name.isdigit()]


@cache
def _machine() -> str:
    """Name this boot of this machine and this space of process ids; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process of this machine started, in ticks since boot; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    after_name = stat.rpartition(")")[2].split()
    state, started = after_name[0], after_name[19]
    return "" if state in "ZX" else started
