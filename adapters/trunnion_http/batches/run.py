"""Run one batch: check its input, answer its lines, and make its files of the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from trunnion.errors import EngineDead

from .asking import LineAsker
from .check import check_input, check_models, look_at_adapters
from .disk import new_id
from .files import PREFIX, FileStore
from .finish import adopt_own, publish_results, write_undone
from .folders import BatchFolder
from .lease import Lease, remove_old_leases
from .results import UNDONE, Results, adopt
from .state import Ending, State

if TYPE_CHECKING:
    from trunnion_http.app import App
    from trunnion_http.settings import BatchSettings

_PULSE: Final = 0.25
"""Seconds between writes of what came in."""
_TELL: Final = 1.0
"""Seconds between writes of the counts, and looks for a wish to cancel."""


class LeaseLost(Exception):
    """Another process has taken over."""


class BatchRun:
    """Run one batch while this process owns it.

    Attributes:
        state: What is known of it.
    """

    def __init__(
        self,
        app: App,
        settings: BatchSettings,
        *,
        files: FileStore,
        folder: BatchFolder,
        lease: Lease,
        slots: asyncio.Semaphore,
    ) -> None:
        """Take what one run needs; ``slots`` are shared by all runs of this process."""
        self.state: State
        self._app = app
        self._settings = settings
        self._files = files
        self._folder = folder
        self._lease = lease
        self._slots = slots
        self._results = Results(folder.path, lease.number)
        self._saving = asyncio.Lock()
        self._wanted: asyncio.Future[Ending]
        self._told = ""

    async def run(self) -> bool:
        """Go on from where the batch is to its end; return whether that was reached, or draining came first.

        Raises:
            LeaseLost: Another process has taken over.
            EngineDead: The engine is down, so that lines must wait.
            OSError: The folder cannot be written.
            asyncio.CancelledError: Cancel it, and the batch waits for its next owner.
        """
        _, self.state = await asyncio.to_thread(self._folder.read)
        if not self.state.over:
            self._wanted = asyncio.get_running_loop().create_future()
            await look_at_adapters(self._app.models)
            await self._alongside(self._work())
        if not self.state.over:
            return False
        await asyncio.to_thread(self._folder.put_away)
        await asyncio.to_thread(remove_old_leases, self._folder.path)
        return True

    async def _alongside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work while the lease is kept and the results are written; what fails first ends both."""
        both = [asyncio.ensure_future(work), asyncio.ensure_future(self._pulse())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                if task.done():
                    task.result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _work(self) -> None:
        state = self.state
        if self._lease.after_death and state.status != "validating":
            state.wary = True
        if state.status == "validating" and not await self._check():
            return
        ending = state.ending
        if ending is None:
            try:
                ending = await self._answer()
            except (EngineDead, asyncio.CancelledError) as error:
                state.wary = state.wary or (isinstance(error, EngineDead) and not self._app.draining)
                if state.wary:
                    await self._save()
                raise
            if ending is None:  # it drains: what was in flight has ended, the next owner goes on
                return
        await self._finish(ending)

    # -- its input ---------------------------------------------------------------------------------------------------

    async def _check(self) -> bool:
        """Look at the input; return whether the batch goes on."""
        checked = await asyncio.to_thread(check_input, self._folder.input, self.state.endpoint)
        check_models(checked, self._app.models)
        self.state.total = checked.total
        if checked.faults:
            self.state.errors = sorted(checked.faults, key=lambda fault: fault.line or 0)
            self.state.total = 0  # as OpenAI counts: nothing of it is begun
            self.state.move("failed")
        else:
            self.state.model = next(iter(checked.models), None) if len(checked.models) == 1 else None
            self.state.move("in_progress")
        await self._save()
        return not checked.faults

    # -- its lines ---------------------------------------------------------------------------------------------------

    async def _answer(self) -> Ending | None:
        """Answer what is not answered yet; return how the batch ends, None if it drains."""
        state = self.state
        done = await asyncio.to_thread(adopt, self._folder.path, self._lease.number, state)
        await self._save()
        await self._look_for_cancel()
        timer = asyncio.get_running_loop().call_later(max(0.0, state.expires_at - time.time()), self._end, "expired")
        asker = LineAsker(
            self._app,
            self._settings,
            source=self._folder.input,
            state=state,
            number=self._lease.number,
            results=self._results,
            slots=self._slots,
            save=self._save,
        )
        asking = asyncio.ensure_future(asker.ask_all(done))
        try:
            either: set[asyncio.Future[Any]] = {asking, self._wanted}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._wanted.done():
                return self._wanted.result()
            return "completed" if asking.result() else None
        finally:
            timer.cancel()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await asyncio.to_thread(self._results.flush)

    def _end(self, ending: Ending) -> None:
        if not self._wanted.done():
            self._wanted.set_result(ending)

    async def _look_for_cancel(self) -> None:
        wanted = await asyncio.to_thread(self._folder.cancel_wanted)
        if wanted is not None:
            self.state.cancelling_at = wanted
            self._end("cancelled")

    # -- its end -----------------------------------------------------------------------------------------------------

    async def _finish(self, ending: Ending) -> None:
        state = self.state
        state.ending = ending
        if ending == "cancelled":
            state.status = "cancelling"
            state.cancelling_at = state.cancelling_at or await asyncio.to_thread(self._folder.cancel_wanted)
        else:
            state.move("finalizing")
        state.output_file_id = state.output_file_id or new_id(PREFIX)
        state.error_file_id = state.error_file_id or new_id(PREFIX)
        await self._save()
        await asyncio.to_thread(self._make_files, ending)
        state.move(ending)
        await self._save()

    def _make_files(self, ending: Ending) -> None:
        """Make the output and error files. Blocks."""
        done = adopt_own(self._folder.path, self._lease.number, self.state)
        if ending in UNDONE:
            write_undone(self._folder.input, self._results, self.state, done, ending)
        if not self._lease.beat():
            raise LeaseLost
        publish_results(self._files, self._results, self.state, self._settings.retention)

    # -- beside it ---------------------------------------------------------------------------------------------------

    async def _pulse(self) -> None:
        """Keep the lease, write results as they come, tell the counts, and look for a wish to cancel.

        Raises:
            LeaseLost: Another process has taken over.
        """
        loop = asyncio.get_running_loop()
        beat = told = loop.time()
        while True:
            await asyncio.sleep(_PULSE)
            if self._results.waiting and self.state.ending is None:
                await asyncio.to_thread(self._results.flush)
            now = loop.time()
            if now - beat >= self._settings.lease_seconds / 3:
                beat = now
                if not await asyncio.to_thread(self._lease.beat):
                    raise LeaseLost
            if now - told >= _TELL:
                told = now
                await self._save_counts()
                if self.state.ending is None:
                    await self._look_for_cancel()

    async def _save_counts(self) -> None:
        counts = f"{self.state.completed} {self.state.failed}"
        if counts != self._told and self.state.status == "in_progress" and self.state.ending is None:
            self._told = counts
            await self._save()

    async def _save(self) -> None:
        async with self._saving:  # an older picture must not come after a newer one
            picture = msgspec.structs.replace(self.state)
            await asyncio.to_thread(self._folder.write, self._lease.number, picture)
