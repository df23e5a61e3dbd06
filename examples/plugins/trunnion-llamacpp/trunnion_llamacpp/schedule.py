"""Choose what each step computes: which sequences have a slot, whose turn it is, how many tokens of each."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from .cells import Cells, Slot
from .choice import Choice
from .turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Hold the tokens of one choice in a step, and whether they reach its end."""

    choice: Choice
    slot: Slot
    tokens: list[int]
    last: bool


class Schedule:
    """Admit choices by priority, then in the order they came; interrupt the last of them where the cache is full.

    An interrupted choice keeps its tokens and computes their KV again once there is room.
    """

    def __init__(self, cells: Cells, turns: Turns, *, batch: int) -> None:
        """Take the cache, the turns, and the tokens of a step at most."""
        self.cells = cells
        self.turns = turns
        self._batch = batch
        self._waiting: list[tuple[tuple[int, int], int, Choice]] = []
        self._running: list[Choice] = []
        self._count = 0
        self._full = False

    @property
    def running(self) -> int:
        """Return the number of choices that hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Return the number of choices that wait for one."""
        return sum(not choice.given_up for _, _, choice in self._waiting)

    def __bool__(self) -> bool:
        return bool(self._running or self._waiting)

    def __iter__(self) -> Iterator[Choice]:
        yield from self._running
        for _, _, choice in self._waiting:
            yield choice

    def add(self, choice: Choice) -> None:
        """Take a choice that waits for a slot."""
        self._count += 1
        heapq.heappush(self._waiting, (choice.rank, self._count, choice))

    def remove_given_up(self) -> list[Choice]:
        """Take out what nobody wants any more, and return it."""
        gone = [choice for choice in self._running if choice.given_up]
        for choice in gone:
            self.end(choice)
        if any(choice.given_up for _, _, choice in self._waiting):
            gone += [choice for _, _, choice in self._waiting if choice.given_up]
            self._waiting = [entry for entry in self._waiting if not entry[2].given_up]
            heapq.heapify(self._waiting)
        return gone

    def end(self, choice: Choice, *, keep: bool = True) -> None:
        """Take a choice's slot back."""
        self._running.remove(choice)
        self._full = False
        assert choice.slot is not None  # it ran
        self.cells.give_back(choice.slot, keep=keep)
        choice.slot = None

    def admit(self) -> None:
        """Lend slots to those that wait, as far as the cache goes; after an interruption not before one has ended."""
        while self._waiting and not (self._full and self._running):
            choice = self._waiting[0][2]
            slot = self.cells.borrow(choice.tokens, (choice.key, choice.salt))
            if slot is None:
                return
            heapq.heappop(self._waiting)
            choice.slot = slot
            if not choice.made:
                choice.cached_tokens = len(slot.tokens)
            self._running.append(choice)

    def next_step(self) -> tuple[int | None, list[Piece]]:
        """Return the adapter of the next step and what it computes.

        First one token of each choice that has its prompt behind it, then pieces of prompts.
        """
        key = self.turns.next({choice.key for choice in self._running})
        mine = sorted((c for c in self._running if c.key == key), key=lambda c: (_left(c) > 1, c.rank))
        pieces: list[Piece] = []
        room = self._batch
        for choice in mine:
            if choice.slot is None or not room:  # interrupted by one before it
                continue
            tokens = choice.tokens[len(choice.slot.tokens) :][:room]
            planned = sum(len(piece.tokens) for piece in pieces)
            if not self._make_room(planned + len(tokens), choice, pieces):
                continue
            room -= len(tokens)
            last = len(choice.slot.tokens) + len(tokens) == len(choice.tokens)
            pieces.append(Piece(choice=choice, slot=choice.slot, tokens=tokens, last=last))
        return key, pieces

    def _make_room(self, tokens: int, choice: Choice, pieces: list[Piece]) -> bool:
        """Make room for the tokens of a step, at the cost of those that rank last; tell whether it was found."""
        in_step = {id(piece.choice) for piece in pieces}
        while not self.cells.make_room(tokens):
            victim = max((c for c in self._running if id(c) not in in_step), key=lambda c: c.rank)
            if victim is choice and len(self._running) == 1:
                return False
            self._interrupt(victim)
            if victim is choice:
                return False
        return True

    def _interrupt(self, choice: Choice) -> None:
        self.end(choice, keep=False)
        self.add(choice)
        self._full = True

    def interrupt_last(self) -> bool:
        """Interrupt the running choice that ranks last, where it is not the only one; tell whether one was."""
        _, *others = sorted(self._running, key=lambda c: c.rank)
        if not others:
            return False
        self._interrupt(others[-1])
        return True

    def clear(self) -> list[Choice]:
        """Take everything out and return it."""
        everything = list(self)
        self._running, self._waiting = [], []
        return everything


def _left(choice: Choice) -> int:
    return len(choice.tokens) - (len(choice.slot.tokens) if choice.slot else 0)
