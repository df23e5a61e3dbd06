"""Hold the account of the cache, the turns and the schedule, without the library."""

from __future__ import annotations

import random
from types import SimpleNamespace

from trunnion_llamacpp.cells import Cells, common
from trunnion_llamacpp.schedule import Schedule
from trunnion_llamacpp.turns import Turns


class FakeMemory:
    """Hold what a cache would: the tokens of each sequence, which the tests compare with the account."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: dict[int, list[int]] = {}

    def forget(self, sequence: int, start: int = 0) -> None:
        self.held[sequence] = self.held.get(sequence, [])[:start]

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.held.get(target)
        self.held[target] = self.held[source][:length]

    def decode(self, slot, tokens: list[int]) -> None:
        slot.tokens += tokens
        self.held.setdefault(slot.sequence, []).extend(tokens)
        assert sum(map(len, self.held.values())) <= self.size


def agrees(cells: Cells, memory: FakeMemory) -> bool:
    return all(slot.tokens == memory.held.get(slot.sequence, []) for slot in cells.slots)


def test_a_prefix_is_found_again() -> None:
    memory = FakeMemory(100)
    cells = Cells(memory, size=100, slots=2, keep=True)
    slot = cells.borrow([1, 2, 3, 4], (None, None))
    memory.decode(slot, [1, 2, 3, 4])
    cells.give_back(slot)
    again = cells.borrow([1, 2, 3, 9], (None, None))
    assert again.tokens == [1, 2, 3]
    assert agrees(cells, memory)


def test_the_last_token_is_always_computed() -> None:
    memory = FakeMemory(100)
    cells = Cells(memory, size=100, slots=1, keep=True)
    slot = cells.borrow([1, 2, 3], (None, None))
    memory.decode(slot, [1, 2, 3])
    cells.give_back(slot)
    assert cells.borrow([1, 2, 3], (None, None)).tokens == [1, 2]


def test_a_prefix_of_another_adapter_or_salt_is_not_taken() -> None:
    memory = FakeMemory(100)
    cells = Cells(memory, size=100, slots=1, keep=True)
    slot = cells.borrow([1, 2, 3], (None, None))
    memory.decode(slot, [1, 2, 3])
    cells.give_back(slot)
    for owner in ((7, None), (None, "salt")):
        other = cells.borrow([1, 2, 3], owner)
        assert other.tokens == []
        cells.give_back(other)
    assert agrees(cells, memory)


def test_a_running_prefix_is_shared() -> None:
    memory = FakeMemory(100)
    cells = Cells(memory, size=100, slots=2, keep=True)
    first = cells.borrow([1, 2, 3, 4], (None, None))
    memory.decode(first, [1, 2, 3, 4])
    second = cells.borrow([1, 2, 3, 5], (None, None))
    assert second is not first
    assert second.tokens == [1, 2, 3]
    assert agrees(cells, memory)


def test_nothing_is_kept_where_that_is_off() -> None:
    memory = FakeMemory(100)
    cells = Cells(memory, size=100, slots=2, keep=False)
    slot = cells.borrow([1, 2, 3], (None, None))
    memory.decode(slot, [1, 2, 3])
    cells.give_back(slot)
    assert memory.held[slot.sequence] == []
    assert cells.borrow([1, 2, 3], (None, None)).tokens == []


def test_random_lending_never_exceeds_the_cache() -> None:
    draw = random.Random(0)
    memory = FakeMemory(64)
    cells = Cells(memory, size=64, slots=4, keep=True)
    lent = []
    for _ in range(3000):
        if lent and draw.random() < 0.4:
            cells.give_back(lent.pop(draw.randrange(len(lent)))[0], keep=draw.random() < 0.8)
        elif lent and draw.random() < 0.6:
            slot, rest = draw.choice(lent)
            piece = rest[: draw.randint(1, 4)]
            if piece and cells.make_room(len(piece)):
                memory.decode(slot, piece)
                del rest[: len(piece)]
        else:
            tokens = [draw.randint(0, 1) for _ in range(draw.randint(1, 20))]
            slot = cells.borrow(tokens, (draw.choice([None, 1]), None))
            if slot is not None:
                lent.append((slot, tokens[len(slot.tokens) :]))
        assert agrees(cells, memory)


def test_common() -> None:
    assert common([1, 2, 3], [1, 2, 4], 9) == 2
    assert common([1, 2, 3], [1, 2, 3], 2) == 2
    assert common([], [1], 9) == 0


def test_turns_are_given_in_order_and_none_starves() -> None:
    turns = Turns(2)
    order = [turns.next({None, 1, 2}) for _ in range(12)]
    assert sorted(order[:6], key=str) == sorted([None, None, 1, 1, 2, 2], key=str)
    assert order[:6] == order[6:]
    assert all(order[i] == order[i + 1] for i in range(0, 12, 2))


def test_one_alone_runs_on() -> None:
    turns = Turns(2)
    assert [turns.next({5}) for _ in range(5)] == [5] * 5
    assert turns.next({5, None}) is None


def choice(tokens: list[int], *, order: int, priority: int = 0, key: int | None = None):
    return SimpleNamespace(
        tokens=list(tokens),
        key=key,
        salt=None,
        rank=(priority, order),
        slot=None,
        made=0,
        cached_tokens=0,
        given_up=False,
    )


def run(schedule: Schedule, memory: FakeMemory, wanted: dict[int, int]) -> list[int]:
    """Run until every choice has as many tokens as wanted; return the order in which they ended."""
    ended = []
    for _ in range(10_000):
        if not schedule:
            return ended
        schedule.admit()
        assert schedule.running, "nothing runs, and something waits"
        key, pieces = schedule.next_step()
        for piece in pieces:
            assert piece.choice.key == key
            memory.decode(piece.slot, piece.tokens)
            if piece.last:
                piece.choice.tokens.append(0)
                piece.choice.made += 1
                number = piece.choice.rank[1]
                if piece.choice.made == wanted[number]:
                    schedule.end(piece.choice)
                    ended.append(number)
    raise AssertionError("the schedule does not end")


def test_everything_ends_where_the_cache_holds_less_than_is_asked() -> None:
    memory = FakeMemory(40)
    cells = Cells(memory, size=40, slots=4, keep=True)
    schedule = Schedule(cells, Turns(2), batch=8)
    draw = random.Random(1)
    for number in range(12):
        prompt = [draw.randint(1, 3) for _ in range(draw.randint(1, 15))]
        schedule.add(choice(prompt, order=number, key=draw.choice([None, 1])))
    assert sorted(run(schedule, memory, dict.fromkeys(range(12), 20))) == list(range(12))
    assert agrees(cells, memory)


def test_priority_decides_who_is_admitted_first() -> None:
    memory = FakeMemory(64)
    schedule = Schedule(Cells(memory, size=64, slots=1, keep=True), Turns(2), batch=8)
    for number, priority in enumerate([5, 0, -5]):
        schedule.add(choice([1, 2], order=number, priority=priority))
    assert run(schedule, memory, dict.fromkeys(range(3), 2)) == [2, 1, 0]


def test_a_long_prompt_is_computed_in_pieces_beside_others() -> None:
    memory = FakeMemory(400)
    schedule = Schedule(Cells(memory, size=400, slots=2, keep=True), Turns(2), batch=16)
    schedule.add(choice([1], order=0))
    schedule.add(choice([2] * 100, order=1))
    assert run(schedule, memory, {0: 3, 1: 1}) == [0, 1]  # the short one does not wait for the long one


def test_what_is_given_up_leaves_at_once() -> None:
    memory = FakeMemory(64)
    schedule = Schedule(Cells(memory, size=64, slots=1, keep=True), Turns(2), batch=8)
    running, waiting = choice([1, 2], order=0), choice([3], order=1)
    schedule.add(running)
    schedule.add(waiting)
    schedule.admit()
    running.given_up = waiting.given_up = True
    assert set(map(id, schedule.remove_given_up())) == {id(running), id(waiting)}
    assert not schedule
    assert schedule.cells.idle
