"""Keep account of the KV cache: which sequence holds which tokens, and who may have its room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Memory(Protocol):
    """What of a context moves tokens about in the cache."""

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drop a sequence from a position on."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Let a sequence share the first tokens of another."""


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """Hold one sequence of the cache: the tokens in it, and whose they are (adapter and salt)."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    owner: tuple[int | None, str | None] = (None, None)
    busy: bool = False
    used: int = 0


class Cells:
    """Lend slots of a cache of ``size`` tokens. What ended sequences left stays until its room is needed.

    Tokens that two sequences share are counted for both, which errs on the safe side.
    """

    def __init__(self, memory: Memory, *, size: int, slots: int, keep: bool) -> None:
        """Take the cache; ``keep`` says whether prefixes are looked for at all."""
        self._memory = memory
        self._size = size
        self._keep = keep
        self._clock = 0
        self.slots = [Slot(sequence=sequence) for sequence in range(slots)]

    @property
    def free(self) -> int:
        """Return the tokens for which there is room without dropping anything."""
        return self._size - sum(len(slot.tokens) for slot in self.slots)

    @property
    def usage(self) -> float:
        """Return the share of the cache that running sequences hold."""
        return sum(len(slot.tokens) for slot in self.slots if slot.busy) / self._size

    @property
    def idle(self) -> bool:
        """Tell whether a slot can be lent."""
        return not all(slot.busy for slot in self.slots)

    def make_room(self, tokens: int, *, spare: Slot | None = None) -> bool:
        """Drop what ended sequences left, the oldest first, until so many tokens fit; tell whether they do.

        ``spare`` is dropped last: it holds the prefix that the room is for.
        """
        left = sorted((s for s in self.slots if not s.busy and s.tokens), key=lambda s: (s is spare, s.used))
        for slot in left:
            if self.free >= tokens:
                return True
            self._clear(slot)
        return self.free >= tokens

    def borrow(self, tokens: Sequence[int], owner: tuple[int | None, str | None]) -> Slot | None:
        """Lend a slot with the longest prefix of ``tokens`` that the cache holds; None where they do not fit now.

        The last token is never among the prefix: its logits are wanted.
        """
        if not self.idle:
            return None
        source, shared = self._best(tokens, owner)
        if not self.make_room(
            len(tokens) + 1 - (shared if source is not None and not source.busy else 0), spare=source
        ):
            return None
        if source is not None and not source.tokens:  # it had to go after all
            source, shared = None, 0
        if source is not None and not source.busy and shared * 2 >= len(source.tokens):
            target = source
            if shared < len(target.tokens):
                self._memory.forget(target.sequence, shared)
        else:
            target = min((s for s in self.slots if not s.busy), key=lambda s: (s is source, bool(s.tokens), s.used))
            if target is source:  # the only one left
                self._memory.forget(target.sequence, shared)
            else:
                self._clear(target)
                if source is not None:
                    self._memory.copy(source.sequence, target.sequence, shared)
        target.tokens = list(tokens[:shared])
        target.owner, target.busy = owner, True
        return target

    def _best(self, tokens: Sequence[int], owner: tuple[int | None, str | None]) -> tuple[Slot | None, int]:
        best, length = None, 0
        if self._keep:
            for slot in self.slots:
                if slot.tokens and slot.owner == owner:
                    shared = common(slot.tokens, tokens, len(tokens) - 1)
                    if shared > length or (shared == length and shared and not slot.busy):
                        best, length = slot, shared
        return best, length

    def give_back(self, slot: Slot, *, keep: bool = True) -> None:
        """Take a slot back; its tokens stay for others where ``keep``."""
        self._clock += 1
        slot.busy, slot.used = False, self._clock
        if not (keep and self._keep):
            self._clear(slot)

    def drop(self, owners: Iterable[int | None] | None = None) -> None:
        """Drop what ended sequences left, of some adapters or of all."""
        chosen = None if owners is None else set(owners)
        for slot in self.slots:
            if not slot.busy and slot.tokens and (chosen is None or slot.owner[0] in chosen):
                self._clear(slot)

    def _clear(self, slot: Slot) -> None:
        self._memory.forget(slot.sequence)
        slot.tokens = []


def common(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    """Return how many tokens two sequences begin with in common, at most ``limit``."""
    limit = min(limit, len(one), len(other))
    if list(one[:limit]) == list(other[:limit]):
        return limit
    return next(i for i in range(limit) if one[i] != other[i])
