"""Find batches that nobody runs, and run as many of them as this process may."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from trunnion.errors import ConfigError, EngineDead
from trunnion_http.call import Call

from .disk import is_id, names
from .files import FileStore
from .folders import PREFIX, BatchFolder, BatchStore
from .lease import Lease, Leases
from .run import BatchRun, LeaseLost

if TYPE_CHECKING:
    from trunnion_http.app import App
    from trunnion_http.settings import BatchSettings

logger = logging.getLogger("trunnion.http")

_POLL: Final = 1.0
"""Seconds between looks for batches that nobody runs."""
_SWEEP: Final = 600.0
"""Seconds between looks for what has expired."""
_STALE: Final = 3600.0
_AGAIN: Final = 2.0
"""Seconds that this process leaves a batch alone after its engine failed under it, or the disk did."""
_LONGEST_AGAIN: Final = 60.0


class _Job(NamedTuple):
    """Name a batch, and where it is."""

    batch_id: str
    owner: str
    folder: BatchFolder


def owner_of(call: Call) -> str:
    """Return the name of the folder of whoever calls: the holder of one key, or everybody where none is asked for."""
    if call.tenant is None:
        return "everybody"
    return hashlib.sha256(call.tenant.encode()).hexdigest()[:32]


class Keeper:
    """Keep files and batches in a folder, and run batches for one app.

    Every owner (the holder of one API key) has a folder; a mark in ``open`` stands for each batch that is not over.
    """

    def __init__(self, app: App, settings: BatchSettings) -> None:
        """Make the folder.

        Raises:
            ConfigError: That cannot be done.
        """
        self.settings = settings
        self._app = app
        self._root = Path(settings.folder).expanduser()
        self._open = self._root / "open"
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open.mkdir(exist_ok=True)
        except OSError as error:
            msg = f"batches.folder: {self._root} cannot be used: {error.strerror}; name another folder"
            raise ConfigError(msg, param="batches.folder") from error
        self._leases = Leases(settings.lease_seconds)
        self._slots = asyncio.Semaphore(settings.lines_in_flight)
        self._running: dict[str, tuple[asyncio.Task[None], str]] = {}
        self._failures: Counter[str] = Counter()
        self._turns: Counter[str] = Counter()
        self._turn = itertools.count(1)
        self._not_before: dict[str, float] = {}
        self._expiry: dict[str, int] = {}
        self._swept = float("-inf")
        self._awake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    def files(self, owner: str) -> FileStore:
        """Return the files of one owner."""
        return FileStore(self._root / owner / "files")

    def batches(self, owner: str) -> BatchStore:
        """Return the batches of one owner."""
        return BatchStore(self._root / owner / "batches")

    def mark(self, owner: str, batch_id: str) -> None:
        """Have a batch found by whoever runs batches. Blocks."""
        (self._open / f"{batch_id}.{owner}").touch()

    def start(self) -> None:
        """Begin to look for batches, on the running loop. Does nothing if that goes on, or was stopped."""
        if self._looking is None and not self._stopped:
            self._looking = asyncio.ensure_future(self._look_for_ever())

    def wake(self) -> None:
        """Look at once."""
        self._awake.set()

    async def stop(self) -> None:
        """Put every batch down, for its next owner to go on with."""
        self._stopped = True
        tasks = [task for task, _ in self._running.values()]
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_for_ever(self) -> None:
        while True:
            self._awake.clear()
            try:
                await self._look()
            except Exception:  # whatever is wrong with the folder may pass
                logger.exception("the folder of batches cannot be read")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._awake.wait()

    async def _look(self) -> None:
        if self._app.draining:
            return
        if time.monotonic() - self._swept > _SWEEP:
            self._swept = time.monotonic()
            await asyncio.to_thread(self._sweep)
        shares = Counter(owner for _, owner in self._running.values())
        for job, lease in await asyncio.to_thread(self._take, shares):
            task = asyncio.ensure_future(self._run(job, lease))
            self._running[job.batch_id] = (task, job.owner)

    def _take(self, shares: Counter[str]) -> list[tuple[_Job, Lease]]:
        """Take as many batches as this process may run, and those that only have to be ended. Blocks.

        Whoever has fewest comes first, then whoever waits longest for a turn, then the oldest: nobody's many batches
        keep others from theirs.

        Args:
            shares: How many batches of each owner this process runs.
        """
        taken: list[tuple[_Job, Lease]] = []
        room = self.settings.max_running - shares.total()
        ranked = []
        for job in self._waiting():
            ranked.append((shares[job.owner], self._turns[job.owner], job.batch_id, job))
            shares[job.owner] += 1
        for *_, job in sorted(ranked):
            try:
                lease = None if len(taken) >= room and not self._ends(job) else self._leases.take(job.folder.path)
            except FileNotFoundError:  # whoever marked it died just then, or is about to make it
                continue
            except (OSError, msgspec.DecodeError):
                logger.exception("batch %s cannot be read", job.batch_id)
                continue
            if lease is not None:
                taken.append((job, lease))
                self._turns[job.owner] = next(self._turn)
        return taken

    def _waiting(self) -> list[_Job]:
        """List the batches that are not over and that this process does not run, the oldest first."""
        found = []
        for name in sorted(names(self._open)):
            batch_id, _, owner = name.partition(".")
            soon = time.monotonic() < self._not_before.get(batch_id, 0.0)
            if is_id(batch_id, PREFIX) and batch_id not in self._running and not soon:
                found.append(_Job(batch_id, owner, BatchFolder(self._root / owner / "batches" / batch_id)))
        return found

    def _ends(self, job: _Job) -> bool:
        if job.folder.cancel_wanted() is not None:
            return True
        if job.batch_id not in self._expiry:
            self._expiry[job.batch_id] = job.folder.read()[1].expires_at
        return self._expiry[job.batch_id] <= time.time()

    async def _run(self, job: _Job, lease: Lease) -> None:
        files = self.files(job.owner)
        run = BatchRun(self._app, self.settings, files=files, folder=job.folder, lease=lease, slots=self._slots)
        try:
            if await run.run():
                await asyncio.to_thread(self._unmark, job)
            else:
                await asyncio.to_thread(lease.release)
        except asyncio.CancelledError:
            await asyncio.to_thread(lease.release)
            raise
        except LeaseLost:
            logger.warning("batch %s was taken over by another process", job.batch_id)
        except EngineDead as error:
            if not self._app.draining:
                logger.warning("batch %s waits: %s", job.batch_id, error)
            await self._put_down(job, lease)
        except Exception:
            logger.exception("batch %s failed here; it is tried again", job.batch_id)
            await self._put_down(job, lease)
        finally:
            del self._running[job.batch_id]
            self._expiry.pop(job.batch_id, None)
            self.wake()

    async def _put_down(self, job: _Job, lease: Lease) -> None:
        """Leave a batch to others, and to this process after a while, which grows with every time."""
        self._failures[job.batch_id] += 1
        wait = min(_LONGEST_AGAIN, _AGAIN * 2 ** (self._failures[job.batch_id] - 1))
        self._not_before[job.batch_id] = time.monotonic() + wait
        with contextlib.suppress(OSError):
            await asyncio.to_thread(lease.release)

    def _unmark(self, job: _Job) -> None:
        """Take note that a batch is over. Blocks."""
        (self._open / f"{job.batch_id}.{job.owner}").unlink(missing_ok=True)
        self._not_before.pop(job.batch_id, None)
        self._failures.pop(job.batch_id, None)
        self._leases.forget(job.folder.path)

    def _sweep(self) -> None:
        """Remove what has expired, and marks without a batch. Blocks."""
        for owner in names(self._root):
            if owner != self._open.name and (self._root / owner).is_dir():
                self.files(owner).sweep()
                self.batches(owner).sweep(self.settings.retention, _STALE)
        for name in names(self._open):
            batch_id, _, owner = name.partition(".")
            mark = self._open / name
            with contextlib.suppress(FileNotFoundError):
                if not (self._root / owner / "batches" / batch_id).exists() and (
                    mark.stat().st_mtime < time.time() - _STALE
                ):
                    mark.unlink()
