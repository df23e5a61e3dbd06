"""Hold what became of the rows of a block, and how far a job has come."""

from __future__ import annotations

from typing import NamedTuple

from trunnion_batch.account import SUMS, Account


class BlockCount(NamedTuple):
    """Hold what became of the rows of one block."""

    rows: int
    ok: int
    replayed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    errors: tuple[tuple[str, int, str], ...]
    """Codes with their counts and a message."""
    cost: float | None = None
    """What was paid for their tokens; None without prices."""
    replayed_tokens: int = 0
    replayed_prompt_tokens: int = 0
    replayed_cached_tokens: int = 0


class Seen(NamedTuple):
    """Hold how far a job has come, before its rows are written."""

    account: Account
    """Of the rows that were answered or failed, without their errors."""
    in_flight: int
    """Rows that were begun and are not among these."""
    replicas: int
    """Those that said hello."""
    warned: tuple[tuple[int, str], ...] = ()
    """What the replicas warned of last, numbered."""


def add_block(account: Account, count: BlockCount, sign: int) -> None:
    """Add a block to an account, or take it out again with ``sign`` -1; its errors are not among that."""
    account.ok += sign * count.ok
    account.failed += sign * (count.rows - count.ok)
    for name in SUMS:
        setattr(account, name, getattr(account, name) + sign * getattr(count, name))
    if count.cost is not None:
        account.cost = (account.cost or 0.0) + sign * count.cost
