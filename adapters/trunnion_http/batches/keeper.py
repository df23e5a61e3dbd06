"""Find batches that nobody runs, and run as many of them as this process may."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

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
_AGAIN: Final = 5.0
"""Seconds that this process leaves a batch alone after its engine failed under it, or the disk did."""


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
        self._running: dict[str, asyncio.Task[None]] = {}
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
        tasks = list(self._running.values())
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_for_ever(self) -> None:
        while True:
            try:
                await self._look()
            except OSError:
                logger.exception("the folder of batches cannot be read")
            self._awake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._awake.wait()

    async def _look(self) -> None:
        if self._app.draining:
            return
        if time.monotonic() - self._swept > _SWEEP:
            self._swept = time.monotonic()
            await asyncio.to_thread(self._sweep)
        for name in sorted(await asyncio.to_thread(names, self._open)):
            batch_id, _, owner = name.partition(".")
            if not is_id(batch_id, PREFIX) or batch_id in self._running:
                continue
            if time.monotonic() < self._not_before.get(batch_id, 0.0):
                continue
            folder = BatchFolder(self._root / owner / "batches" / batch_id)
            lease = await asyncio.to_thread(self._take, batch_id, folder)
            if lease is None:
                continue
            files = self.files(owner)
            run = BatchRun(self._app, self.settings, files=files, folder=folder, lease=lease, slots=self._slots)
            self._running[batch_id] = asyncio.ensure_future(self._run(batch_id, owner, folder, lease, run))

    def _take(self, batch_id: str, folder: BatchFolder) -> Lease | None:
        """Take a batch, if this process may have one more, or if it only has to be ended. Blocks."""
        try:
            if len(self._running) >= self.settings.max_running and not self._ends(batch_id, folder):
                return None
            return self._leases.take(folder.path)
        except FileNotFoundError:  # marked, and not there: whoever made it died just then, or it is just being made
            return None

    def _ends(self, batch_id: str, folder: BatchFolder) -> bool:
        if folder.cancel_wanted() is not None:
            return True
        if batch_id not in self._expiry:
            self._expiry[batch_id] = folder.read()[1].expires_at
        return self._expiry[batch_id] <= time.time()

    async def _run(self, batch_id: str, owner: str, folder: BatchFolder, lease: Lease, run: BatchRun) -> None:
        try:
            if await run.run():
                await asyncio.to_thread(self._unmark, owner, batch_id)
                self._leases.forget(folder.path)
            else:
                await asyncio.to_thread(lease.release)
        except asyncio.CancelledError:
            await asyncio.to_thread(lease.release)
            raise
        except LeaseLost:
            logger.warning("batch %s was taken over by another process", batch_id)
        except EngineDead as error:
            if not self._app.draining:
                logger.warning("batch %s waits: %s", batch_id, error)
            await self._put_down(batch_id, lease)
        except Exception:
            logger.exception("batch %s failed here; it is tried again", batch_id)
            await self._put_down(batch_id, lease)
        finally:
            del self._running[batch_id]
            self._expiry.pop(batch_id, None)
            self.wake()

    async def _put_down(self, batch_id: str, lease: Lease) -> None:
        self._not_before[batch_id] = time.monotonic() + _AGAIN
        with contextlib.suppress(OSError):
            await asyncio.to_thread(lease.release)

    def _unmark(self, owner: str, batch_id: str) -> None:
        (self._open / f"{batch_id}.{owner}").unlink(missing_ok=True)
        self._not_before.pop(batch_id, None)

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
