"""The shelf lends any number of adapters through few places of an engine, and never lends one that is not there."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from trunnion.adapter_shelf import AdapterShelf
from trunnion.engine import AdapterRef
from trunnion.errors import AdapterNotFound, DeadlineExceeded, InternalError, Overloaded


class Engine:
    """Holds adapters, and notices whatever an engine would choke on."""

    def __init__(self, places: int | None = None) -> None:
        self.places = places
        self.held: dict[str, str] = {}
        self.broken: set[str] = set()
        self.loads: Counter[str] = Counter()
        self.most = 0
        self.gate: asyncio.Event | None = None

    async def load_adapter(self, adapter: AdapterRef) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if adapter.name in self.broken:
            raise AdapterNotFound(f"no adapter at {adapter.path}")
        if self.places is not None and adapter.name not in self.held and len(self.held) >= self.places:
            raise Overloaded("no slot is free")
        self.held[adapter.name] = adapter.path
        await asyncio.sleep(0)
        self.loads[adapter.name] += 1
        self.most = max(self.most, len(self.held))

    async def unload_adapter(self, name: str) -> None:
        await asyncio.sleep(0)
        if name not in self.held:
            raise AdapterNotFound(name)
        del self.held[name]

    async def list_adapters(self) -> list[AdapterRef]:
        return [AdapterRef(name=name, path=path) for name, path in self.held.items()]

    async def start(self):
        raise NotImplementedError

    def generate(self, request):
        raise NotImplementedError

    async def stop(self, *, drain: float = 0.0) -> None:
        raise NotImplementedError


def shelf_of(engine: Engine, names: str, limit: int | None = None) -> AdapterShelf:
    shelf = AdapterShelf(engine, {}, limit=limit)
    for name in names:
        shelf.know(name, f"/{name}")
    return shelf


async def use(shelf: AdapterShelf, engine: Engine, name: str) -> None:
    async with shelf.lent(name):
        assert engine.held.get(name) == f"/{name}"
        await asyncio.sleep(0)
        assert name in engine.held


async def test_loaded_at_first_use_and_once():
    engine = Engine()
    shelf = shelf_of(engine, "ab", 2)
    assert not engine.held
    await asyncio.gather(*(use(shelf, engine, "a") for _ in range(5)))
    assert engine.loads == {"a": 1}
    assert set(shelf) == {"a", "b"}
    assert shelf.loaded == ("a",)


async def test_the_one_not_used_for_longest_makes_room():
    engine = Engine()
    shelf = shelf_of(engine, "abc", 2)
    for name in "abac":
        await use(shelf, engine, name)
    assert set(engine.held) == {"a", "c"}


@pytest.mark.parametrize("limit", [4, None])
async def test_many_adapters_through_four_places(limit):
    engine = Engine(4)
    names = [f"a{i}" for i in range(50)]
    shelf = AdapterShelf(engine, {}, limit=limit)
    for name in names:
        shelf.know(name, f"/{name}")
    pick = random.Random(1)

    async def client() -> None:
        for _ in range(20):
            await use(shelf, engine, pick.choice(names))

    async with asyncio.timeout(60):
        await asyncio.gather(*(client() for _ in range(32)))
    assert engine.most <= 4
    assert shelf.loads - shelf.unloads == len(engine.held)


async def test_a_busy_adapter_cannot_keep_others_out():
    engine = Engine(1)
    shelf = shelf_of(engine, "ab", 1)
    done = asyncio.Event()

    async def busy() -> None:
        while not done.is_set():
            await use(shelf, engine, "a")

    tasks = [asyncio.create_task(busy()) for _ in range(8)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        await use(shelf, engine, "b")
    done.set()
    await asyncio.gather(*tasks)


async def test_an_adapter_that_cannot_be_loaded_costs_its_own_requests():
    engine = Engine(1)
    engine.broken.add("a")
    shelf = shelf_of(engine, "ab", 1)
    for _ in range(2):
        with pytest.raises(AdapterNotFound, match="/a"):
            await use(shelf, engine, "a")
    await use(shelf, engine, "b")
    with pytest.raises(AdapterNotFound, match="there are: a, b"):
        await use(shelf, engine, "c")


async def test_a_foreign_failure_is_an_internal_error():
    class Odd(Engine):
        async def load_adapter(self, adapter: AdapterRef) -> None:
            raise KeyError("weights")

    shelf = shelf_of(Odd(), "a", 1)
    with pytest.raises(InternalError, match="'a' could not be loaded"):
        await use(shelf, Odd(), "a")


async def test_all_places_of_the_engine_are_taken_by_others():
    engine = Engine(0)
    shelf = shelf_of(engine, "a")
    with pytest.raises(Overloaded):
        await use(shelf, engine, "a")


async def test_a_deadline_ends_the_wait():
    engine = Engine()
    engine.gate = asyncio.Event()
    shelf = shelf_of(engine, "a", 1)
    with pytest.raises(DeadlineExceeded, match="'a' was loaded"):
        async with shelf.lent("a", deadline=time.time() + 0.05):
            pass
    engine.gate.set()
    await use(shelf, engine, "a")


async def test_whoever_gives_up_waiting_leaves_nothing_behind():
    engine = Engine()
    shelf = shelf_of(engine, "ab", 1)
    async with shelf.lent("a"):
        waiting = asyncio.create_task(use(shelf, engine, "b"))
        await asyncio.sleep(0)
        waiting.cancel()
    for name in "ab":
        async with asyncio.timeout(5):
            await use(shelf, engine, name)


async def test_add_replaces_and_takes_back():
    engine = Engine()
    shelf = AdapterShelf(engine, {}, limit=2)
    await shelf.add("a", "/a")
    await shelf.add("a", "/other")
    assert engine.held == {"a": "/other"}
    engine.broken |= {"a", "b"}
    for name in "ab":
        with pytest.raises(AdapterNotFound):
            await shelf.add(name, "/nowhere")
    assert shelf.path("a") == "/other"
    assert "b" not in shelf


async def test_remove_hides_at_once_and_waits_for_requests():
    engine = Engine()
    shelf = shelf_of(engine, "a", 1)
    async with shelf.lent("a"):
        removing = asyncio.create_task(shelf.remove("a"))
        await asyncio.sleep(0.01)
        assert "a" not in shelf
        assert "a" in engine.held
        with pytest.raises(AdapterNotFound):
            await use(shelf, engine, "a")
    await removing
    assert not engine.held
    with pytest.raises(AdapterNotFound):
        await shelf.remove("a")


async def test_remove_while_it_is_being_loaded():
    engine = Engine()
    engine.gate = asyncio.Event()
    shelf = shelf_of(engine, "a", 1)
    using = asyncio.create_task(shelf.lent("a").__aenter__())
    await asyncio.sleep(0)
    removing = asyncio.create_task(shelf.remove("a"))
    await asyncio.sleep(0)
    using.cancel()
    engine.gate.set()
    await removing
    assert not engine.held


async def test_removed_while_it_waits_for_a_place():
    engine = Engine()
    shelf = shelf_of(engine, "ab", 1)
    async with shelf.lent("a"):
        waiting = asyncio.create_task(use(shelf, engine, "b"))
        await asyncio.sleep(0)
        await shelf.remove("b")
    with pytest.raises(AdapterNotFound):
        await waiting


def test_an_engine_that_loads_none_is_refused():
    with pytest.raises(TypeError, match="cannot load adapters"):
        AdapterShelf(object(), {})  # type: ignore[arg-type]
