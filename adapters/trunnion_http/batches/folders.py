"""Keep batches on disk.

A batch's folder::

    input.jsonl       its input: a second name of the file that was uploaded
    state-N.json      what is known, as the owner with lease N wrote it; the highest number counts
    results-N.jsonl   the lines that owner N answered, and those that failed
    errors-N.jsonl
    lease-N           who owns it (see trunnion_http.batches.lease)
    cancel            somebody wants it cancelled: when, in seconds
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from trunnion.errors import InvalidArgument, NotFound

from .disk import is_id, names, new_id, write_atomically, write_once
from .state import OVER, State

PREFIX: Final = "batch_"
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(State).decode


class BatchFolder:
    """Read and write one batch's folder. Everything here blocks; call it in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.input = path / "input.jsonl"

    def read(self) -> tuple[int, State]:
        """Return what is known, and the number of the owner who wrote it. Raises :class:`FileNotFoundError`."""
        while True:
            number = max(self._numbers(), default=None)
            if number is None:
                raise FileNotFoundError(self.path)
            with contextlib.suppress(FileNotFoundError):  # it was put away, or a later owner's came
                return number, _decode(self._state(number).read_bytes())

    def look(self) -> State:
        """Return what callers are told: a wish to cancel shows at once. Raises :class:`FileNotFoundError`."""
        _, state = self.read()
        wanted = self.cancel_wanted()
        if wanted is not None and state.status in {"validating", "in_progress"}:
            state.status, state.cancelling_at = "cancelling", wanted
        return state

    def write(self, number: int, state: State) -> None:
        """Write what the owner with this number knows."""
        write_atomically(self._state(number), _encode(state))

    def cancel(self) -> None:
        """Ask the owner, whoever it is, to cancel."""
        write_once(self.path / "cancel", b"%d" % time.time())

    def cancel_wanted(self) -> int | None:
        """Return when somebody asked for it; None if nobody did."""
        try:
            data = (self.path / "cancel").read_bytes()
        except FileNotFoundError:
            return None
        return int(data or time.time())

    def put_away(self) -> None:
        """Remove all but what is known, once a batch is over."""
        kept = self._state(max(self._numbers())).name
        for name in names(self.path):
            if name not in {kept, "cancel"} and not name.startswith("lease-"):
                (self.path / name).unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        found = (name.removeprefix("state-").removesuffix(".json") for name in names(self.path))
        return [int(number) for number in found if number.isdigit()]

    def _state(self, number: int) -> Path:
        return self.path / f"state-{number}.json"


class BatchStore:
    """Find the batches of one owner. Everything here blocks; call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def draft(self, state: State) -> Iterator[BatchFolder]:
        """Begin to make a batch's folder, which nobody sees before :meth:`publish`."""
        draft = self.folder / f"draft-{secrets.token_hex(8)}"
        draft.mkdir(parents=True)
        try:
            made = BatchFolder(draft)
            made.write(0, state)
            yield made
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def publish(self, made: BatchFolder, batch_id: str) -> None:
        """Let a batch be seen, whole."""
        made.path.rename(self.folder / batch_id)

    def find(self, batch_id: str) -> BatchFolder:
        """Return a batch's folder. Raises :class:`NotFound`."""
        path = self.folder / batch_id
        if not is_id(batch_id, PREFIX) or not path.is_dir():
            raise no_batch(batch_id)
        return BatchFolder(path)

    def look(self, batch_id: str) -> State:
        """Return what callers are told of a batch. Raises :class:`NotFound`."""
        try:
            return self.find(batch_id).look()
        except FileNotFoundError as error:
            raise no_batch(batch_id) from error

    def cancel(self, batch_id: str) -> None:
        """Ask for a batch's end; nothing changes where that was done before.

        Raises:
            NotFound: There is no such batch.
            InvalidArgument: It has ended, or is about to (409).
        """
        status = self.look(batch_id).status
        if status in OVER or status == "finalizing":
            if status == "cancelled":
                return
            raise InvalidArgument(f"Cannot cancel a batch with status '{status}'.", http_status=409, code="conflict")
        self.find(batch_id).cancel()

    def ids(self) -> list[str]:
        """List the ids of all batches, oldest first."""
        return sorted(name for name in names(self.folder) if is_id(name, PREFIX))

    def sweep(self, retention: float | None, stale: float) -> None:
        """Remove batches that ended ``retention`` seconds ago, and what was begun ``stale`` seconds ago and left."""
        now = time.time()
        for name in names(self.folder):
            path = self.folder / name
            with contextlib.suppress(FileNotFoundError):
                if not is_id(name, PREFIX):
                    old = path.stat().st_mtime < now - stale
                else:
                    _, state = BatchFolder(path).read()
                    ended = state.failed_at or state.completed_at or state.expired_at or state.cancelled_at
                    old = retention is not None and state.over and (ended or 0) < now - retention
                if old:
                    shutil.rmtree(path, ignore_errors=True)


def new_batch_id() -> str:
    """Return an id for a batch."""
    return new_id(PREFIX)


def no_batch(batch_id: str) -> NotFound:
    """Return the error for a batch that is not there, or not this caller's."""
    return NotFound(f"No batch found with id '{batch_id}'.", param="id")
