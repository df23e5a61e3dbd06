"""Be the one place of a job that outlives its replicas: journal, account of blocks, and who was there at deaths.

An actor without a CPU of its own. Replicas call it once or twice per block.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from trunnion.errors import EngineDead, TrunnionError
from trunnion_batch.account import Account, ErrorKind, check_errors
from trunnion_batch.journal import Journal

from .block_count import BlockCount, Seen, add_block

_FLUSH_SECONDS: Final = 2.0
_WARNINGS: Final = 20
"""Of the replicas, that are kept for who looks."""

Call = tuple[str, int]
"""A block, by the task that brings it, which is the same when the task is repeated, and its number in that task."""


@dataclass(slots=True)
class _Replica:
    """Hold what one replica has begun."""

    life: str
    in_a_row: int = 0
    """Lives that ended without a row that came through in between."""
    blocks: dict[Call, list[bytes]] = field(default_factory=dict)
    alone: list[bytes] = field(default_factory=list)
    parts: dict[Call, BlockCount] = field(default_factory=dict)
    """How far blocks have come that have not ended."""


class Desk:
    """Hold a job's journal, cache, account and deaths."""

    def __init__(
        self,
        *,
        journal: str | None = None,
        cache: str | None = None,
        max_error_rate: float | None = None,
        max_restarts: int | None = None,
    ) -> None:
        """Open what is named; what fails is raised by the first call, since a constructor loses its errors' types.

        ``max_restarts``: new processes of a replica in a row, without a row that came through, that are let work.
        """
        self._failure: TrunnionError | None = None
        self._journal: Journal | None = None
        self._cache: Journal | None = None
        self._limit = max_error_rate
        self._max_restarts = max_restarts
        self._replicas: dict[str, _Replica] = {}
        self._deaths: Counter[bytes] = Counter()
        self._counts: dict[Call, BlockCount] = {}
        self._total = Account()
        self._restarts = 0
        self._warnings = 0
        self._taken: dict[Call, list[tuple[bytes, bytes]]] = {}
        self._returned: dict[bytes, list[bytes]] = {}
        self._warned: deque[tuple[int, str]] = deque(maxlen=_WARNINGS)
        self._began = time.monotonic()
        try:
            self._journal = None if journal is None else Journal(journal)
            self._cache = None if cache is None else Journal(cache, share=True)
        except TrunnionError as error:
            self._failure = error
        if journal or cache:
            threading.Thread(target=self._flush, name="trunnion-journal", daemon=True).start()

    def _flush(self) -> None:
        while True:
            time.sleep(_FLUSH_SECONDS)
            with contextlib.suppress(TrunnionError, ValueError, OSError):  # told by the next write
                for one in (self._journal, self._cache):
                    if one is not None:
                        one.flush()

    def hello(self, replica: str, life: str) -> None:
        """Meet a replica, which may be the next life of one that died: then its rows were there at a death.

        Raises:
            TrunnionError: The journal or the cache cannot be opened.
            EngineDead: The replica's process ended too many times in a row.
        """
        if self._failure is not None:
            raise self._failure
        before = self._replicas.get(replica)
        in_a_row = 0
        if before is not None and before.life != life:
            self._restarts += 1
            in_a_row = before.in_a_row + 1
            for key in before.alone or [key for keys in before.blocks.values() for key in keys]:
                self._deaths[key] += 1
            for call in before.blocks:
                self._give_back(call)
        self._replicas[replica] = _Replica(life, in_a_row)
        if self._max_restarts is not None and in_a_row > self._max_restarts:
            message = f"a replica's process ended {in_a_row} times without an answered row in between"
            raise EngineDead(message, param="max_engine_restarts")

    def _progress(self, replica: str) -> None:
        if replica in self._replicas:
            self._replicas[replica].in_a_row = 0

    def begin(
        self, replica: str, call: Call, keys: Sequence[bytes | None], shared: Sequence[bool]
    ) -> tuple[list[int], list[bytes | None]]:
        """Take note that a replica begins a block.

        Args:
            replica: Whose.
            call: Which block.
            keys: The keys of its requests, None for rows that have none. Equal rows are equally dangerous.
            shared: Whether a row may take an answer of another, from the cache.

        Returns:
            At how many deaths each row was, and the answer of each that is known.
        """
        self._give_back(call)  # of a life that is over
        if replica in self._replicas:
            self._replicas[replica].blocks[call] = [key for key in keys if key is not None]
        answers: list[bytes | None] = [None] * len(keys)
        taken: list[tuple[bytes, bytes]] = []
        for index, key in enumerate(keys):
            if key is None:
                continue
            if self._journal is not None:
                answers[index] = self._take(key, taken)
            if answers[index] is None and self._cache is not None and shared[index]:
                answers[index] = self._cache.take_packed(key)
        if taken:
            self._taken[call] = taken
        if not self._deaths:
            return [0] * len(keys), answers
        return [0 if key is None else self._deaths.get(key, 0) for key in keys], answers

    def _take(self, key: bytes, taken: list[tuple[bytes, bytes]]) -> bytes | None:
        again = self._returned.get(key)
        if again:
            answer = again.pop()
            if not again:
                del self._returned[key]
        else:
            assert self._journal is not None
            known = self._journal.take_packed(key)
            if known is None:
                return None
            answer = known
        taken.append((key, answer))
        return answer

    def _give_back(self, call: Call) -> None:
        """Let the rows of a block that was lost have again what they took and what was written for them."""
        for key, answer in self._taken.pop(call, ()):
            self._returned.setdefault(key, []).append(answer)

    def write(self, call: Call, answers: Sequence[tuple[bytes, bytes, bool]]) -> None:
        """Write answers of a block, as keys, packed completions, and whether others may share them.

        Raises:
            ConfigError: They cannot be written.
        """
        for key, answer, shared in answers:
            if self._journal is not None:
                self._journal.add_packed(key, answer)
                self._taken.setdefault(call, []).append((key, answer))
            if self._cache is not None and shared:
                self._cache.add_packed(key, answer)

    def entering(self, replica: str, row: bytes) -> None:
        """Take note that a row that was at a death goes to the engine, which has no others then."""
        if replica in self._replicas:
            self._replicas[replica].alone.append(row)

    def left(self, replica: str, row: bytes) -> None:
        """Take note that such a row is through."""
        if replica in self._replicas:
            with contextlib.suppress(ValueError):
                self._replicas[replica].alone.remove(row)
            self._progress(replica)

    def end(self, replica: str, call: Call, count: BlockCount, restarts: int = 0) -> None:
        """Take note of what became of a block; a block that is done again counts once.

        Raises:
            TrunnionError: Too large a share of the rows failed.
        """
        if replica in self._replicas:
            self._replicas[replica].blocks.pop(call, None)
            self._replicas[replica].parts.pop(call, None)
        self._taken.pop(call, None)
        if count.ok > count.replayed:
            self._progress(replica)
        self._restarts += restarts
        before = self._counts.get(call)
        if before is not None:
            add_block(self._total, before, -1)
        self._counts[call] = count
        add_block(self._total, count, 1)
        check_errors(self._total.failed, self._total.rows, self._limit)

    def underway(self, replica: str, parts: Mapping[Call, BlockCount], warned: Sequence[str]) -> None:
        """Take note how far a replica's blocks have come, and of warnings."""
        if replica in self._replicas:
            one = self._replicas[replica]
            one.parts = {call: part for call, part in parts.items() if call in one.blocks}
        for text in warned:
            self._warnings += 1
            self._warned.append((self._warnings, text))

    def seen(self) -> Seen:
        """Return how far the job has come; cheap, however many blocks there were."""
        total = dataclasses.replace(self._total)
        begun = sum(len(keys) for one in self._replicas.values() for keys in one.blocks.values())
        for part in (part for one in self._replicas.values() for part in one.parts.values()):
            add_block(total, part, 1)
            begun -= part.rows
        return Seen(total, max(begun, 0), len(self._replicas), tuple(self._warned))

    def account(self) -> dict[str, Any]:
        """Return the account of all blocks so far; see :meth:`trunnion_batch.account.Account.summary`."""
        account = Account(began=self._began)
        for count in self._counts.values():
            add_block(account, count, 1)
            for code, number, message in count.errors:
                kind = account.errors.setdefault(code, ErrorKind(message=message))
                kind.count += number
        journal = self._journal.stats if self._journal is not None else None
        more: dict[str, Any] = {"engine_restarts": self._restarts, "blocks": len(self._counts)}
        if journal is not None:
            more |= {"journal_rows": journal.recorded, "journal_bytes": journal.bytes}
        return account.summary(account.rows, **more)

    def close(self) -> None:
        """Bring the journal to safety and let go of it."""
        for one in (self._journal, self._cache):
            if one is not None:
                one.close()
        self._journal = self._cache = None
