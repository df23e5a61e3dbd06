"""Keep count of KV cache blocks: those in use, those that hold a prefix others may share, and those that are free."""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from .jobs import Job

HASH: Final = "sim-blake2b-64"
_MOST_IDLE: Final = 1 << 16
"""Idle blocks remembered at most, however many there are: memory is bounded."""
Log = Callable[[dict[str, Any]], None]


def block_hashes(
    token_ids: Sequence[int], size: int, *, adapter: str | None = None, salt: str | None = None
) -> list[int]:
    """Return the hash of each full block: blake2b with 8 bytes, of the hash before it and the block's tokens.

    All are 64 bits, big endian. The hash before the first is that of adapter and salt, joined by a NUL; 0 without.
    """
    before = b"\0" * 8
    if adapter is not None or salt is not None:
        before = hashlib.blake2b(f"{adapter or ''}\0{salt or ''}".encode(), digest_size=8).digest()
    made = []
    for start in range(0, len(token_ids) - size + 1, size):
        block = array("Q", token_ids[start : start + size])
        block.byteswap()
        before = hashlib.blake2b(before + block.tobytes(), digest_size=8).digest()
        made.append(int.from_bytes(before, "big"))
    return made


class BlockPool:
    """Lend blocks. Shared blocks that nobody uses stay as cache and are evicted, least recently used first."""

    def __init__(self, capacity: int, size: int, *, caching: bool = True, log: Log | None = None) -> None:
        self.capacity = capacity
        self.size = size
        self.caching = caching
        self._log = log
        self._private = 0
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Return the blocks that can be lent: the free ones and the idle cache."""
        return self.capacity - self._private - len(self._users)

    @property
    def used(self) -> int:
        """Return the blocks that jobs hold."""
        return self._private + len(self._users)

    @property
    def shared(self) -> bool:
        """Tell whether jobs hold blocks that others may share."""
        return bool(self._users)

    @property
    def cached(self) -> int:
        """Return the blocks that hold a prefix and that no job uses."""
        return len(self._idle)

    def hits(self, job: Job) -> int:
        """Return how many leading blocks of the job are cached; the prompt's last token is always computed anew."""
        if not self.caching or not job.hashes:
            return 0
        found = 0
        for block in job.hashes[: (job.prompt + job.progress - 1) // self.size]:
            if block not in self._users and block not in self._idle:
                break
            found += 1
        return found

    def admit(self, job: Job, hits: int, tokens: int) -> bool:
        """Lend the blocks of a job that begins: cached ones, and new ones up to so many tokens. False: too few."""
        shared = job.hashes[:hits]
        new = job.blocks_at(tokens, self.size) - hits
        if hits and new + sum(block in self._idle for block in shared) > self.available:
            return False
        if not self._take(new):
            return False
        for block in shared:
            self._idle.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1
        self._make_room()
        job.private += new
        job.held.extend(shared)
        job.stored = hits
        return True

    def grow(self, job: Job, tokens: int) -> bool:
        """Lend what the job lacks to hold so many tokens. False, and nothing lent, if too few are left."""
        lacking = job.blocks_at(tokens, self.size) - job.private - len(job.held)
        if lacking <= 0:
            return True
        if not self._take(lacking):
            return False
        job.private += lacking
        self._make_room()
        return True

    def trim(self, job: Job, tokens: int) -> None:
        """Take back what the job does not need to hold so many tokens."""
        surplus = job.private + len(job.held) - job.blocks_at(tokens, self.size)
        if surplus > 0:
            job.private -= surplus
            self._private -= surplus

    def _take(self, count: int) -> bool:
        if count > self.available:
            return False
        self._private += count
        return True

    def _make_room(self) -> None:
        """Evict cache until everything fits."""
        over = max(self.used + len(self._idle) - self.capacity, len(self._idle) - _MOST_IDLE)
        if over > 0:
            evicted = tuple(self._idle.popitem(last=False)[0] for _ in range(over))
            if self._log is not None:
                self._log({"type": "removed", "block_hashes": evicted})

    def store(self, job: Job) -> None:
        """Share the blocks of the prompt that are computed by now."""
        end = min(job.computed // self.size, len(job.hashes))
        if not self.caching or end <= job.stored:
            return
        new: list[int] = []
        first = job.stored
        for index in range(job.stored, end):
            block = job.hashes[index]
            if block in self._users or block in self._idle:
                self._tell(job, first, new)
                new, first = [], index + 1
                continue
            new.append(block)
            self._users[block] = 1
            job.held.append(block)
            job.private -= 1
            self._private -= 1
        self._tell(job, first, new)
        job.stored = end

    def _tell(self, job: Job, first: int, new: list[int]) -> None:
        if self._log is None or not new:
            return
        size = self.size
        self._log(
            {
                "type": "stored",
                "block_hashes": tuple(new),
                "parent_block_hash": job.hashes[first - 1] if first else None,
                "token_ids": tuple(job.token_ids[first * size : (first + len(new)) * size]),
                "block_size": size,
                "adapter": job.adapter,
            }
        )

    def release(self, job: Job) -> None:
        """Take back all blocks of a job; what is shared stays as cache, its tail to be evicted first."""
        self._private -= job.private
        job.private = 0
        for block in reversed(job.held):
            users = self._users[block] - 1
            if users:
                self._users[block] = users
            else:
                del self._users[block]
                self._idle[block] = None
        job.held.clear()
        job.stored = 0
        if len(self._idle) > _MOST_IDLE:
            self._make_room()

    def reset(self) -> bool:
        """Forget the cache; False, and nothing forgotten, where jobs use some of it."""
        if self._users:
            return False
        self._idle.clear()
        if self._log is not None:
            self._log({"type": "cleared"})
        return True
