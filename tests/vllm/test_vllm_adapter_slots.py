"""Who may load and unload what, while whom: on a stand-in that can be held still."""

import asyncio
import sys
from types import ModuleType, SimpleNamespace

import pytest
from fake_llm import FakeLLM

import trunnion_vllm
from trunnion.errors import AdapterNotFound, Cancelled, Overloaded
from trunnion_vllm.adapter_slots import AdapterSlots


@pytest.fixture
def llm(monkeypatch):
    """Return the stand-in; LoRARequests are plain namespaces, so that nothing imports vLLM."""
    module = ModuleType("trunnion_vllm._vllm")
    module.LoRARequest = SimpleNamespace
    module.EngineDeadError = module.EngineGenerateError = KeyError
    module.BUSY_ERRORS = module.RETRYABLE_ERRORS = module.NOT_FOUND_ERRORS = ()
    module.CLIENT_ERRORS = (ValueError,)
    monkeypatch.setitem(sys.modules, "trunnion_vllm._vllm", module)
    monkeypatch.setattr(trunnion_vllm, "_vllm", module, raising=False)
    return FakeLLM()


@pytest.fixture
def slots(llm):
    slots = AdapterSlots()
    slots.open(llm, limit=2)
    return slots


async def turn(times=5):
    for _ in range(times):
        await asyncio.sleep(0)


async def test_slots_are_freed_for_real(slots, llm):
    for number in range(20):
        await slots.load(f"adapter {number}", "/p")
        if number:
            await slots.unload(f"adapter {number - 1}")
    assert slots.names == ("adapter 19",)
    assert len(llm.held) == 1


async def test_the_last_slot_is_not_given_twice(slots, llm):
    llm.gate.clear()
    loads = [asyncio.create_task(slots.load(name, f"/{name}")) for name in "abc"]
    await turn()
    llm.gate.set()
    outcomes = await asyncio.gather(*loads, return_exceptions=True)
    assert outcomes[:2] == [None, None]
    assert isinstance(outcomes[2], Overloaded)
    assert outcomes[2].retryable  # one was still coming
    with pytest.raises(Overloaded, match="loaded: a, b") as caught:
        await slots.load("c", "/c")
    assert not caught.value.retryable


async def test_loads_of_one_name_run_one_after_the_other(slots, llm):
    await asyncio.gather(*(slots.load("a", "/a") for _ in range(5)))
    assert llm.calls == [("add", "a")]


async def test_an_adapter_leaves_when_the_last_request_on_it_has_ended(slots, llm):
    await slots.load("a", "/a")
    users = [slots.lease("a"), slots.lease("a")]
    unloading = asyncio.create_task(slots.unload("a"))
    await turn()
    with pytest.raises(AdapterNotFound, match="loaded: none"):
        slots.lease("a")
    with pytest.raises(AdapterNotFound):
        await slots.unload("a")
    users.pop().release()
    await turn()
    assert llm.held
    users.pop().release()
    await unloading
    assert not llm.held


async def test_a_caller_that_stops_waiting_stops_nothing(slots, llm):
    await slots.load("a", "/a")
    user = slots.lease("a")
    unloading = asyncio.create_task(slots.unload("a"))
    await turn()
    unloading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unloading
    assert slots.names == ()
    user.release()
    await turn()
    assert not llm.held


async def test_another_path_replaces_an_adapter_for_those_who_come_after(slots, llm):
    await slots.load("a", "/old")
    old = slots.lease("a")
    await slots.load("a", "/new")
    assert slots.lease("a").path == "/new"
    assert len(llm.held) == 2
    old.release()
    await turn()
    assert len(llm.held) == 1
    assert llm.calls[:2] == [("add", "a"), ("add", "a#2")]  # vLLM's caches go by the name
    assert slots.public_name("a#2") == "a"


async def test_without_a_free_slot_the_old_one_leaves_first(slots, llm):
    await slots.load("a", "/old")
    await slots.load("b", "/b")
    old = slots.lease("a")
    replacing = asyncio.create_task(slots.load("a", "/new"))
    await turn()
    assert slots.names == ("b",)
    old.release()
    await replacing
    assert [ref.path for ref in slots.refs()] == ["/b", "/new"]


async def test_what_cannot_be_replaced_stays(slots, llm):
    await slots.load("a", "/old")
    await slots.load("b", "/b")
    llm.fails.add("/new")
    with pytest.raises(AdapterNotFound, match="/new"):
        await slots.load("a", "/new")
    assert sorted(ref.path for ref in slots.refs()) == ["/b", "/old"]
    assert len(llm.held) == 2


async def test_a_failed_load_takes_no_slot(slots, llm):
    llm.fails.add("/bad")
    for _ in range(5):
        with pytest.raises(AdapterNotFound):
            await slots.load("bad", "/bad")
    await asyncio.gather(slots.load("a", "/a"), slots.load("b", "/b"))


async def test_without_a_limit_vllm_swaps(llm):
    slots = AdapterSlots()
    slots.open(llm, limit=None)
    await asyncio.gather(*(slots.load(str(number), f"/{number}") for number in range(50)))
    assert len(slots.names) == 50


async def test_stopping_tells_those_who_wait(slots, llm):
    await slots.load("a", "/a")
    slots.lease("a")
    unloading = asyncio.create_task(slots.unload("a"))
    await turn()
    await slots.close()
    with pytest.raises(Cancelled, match="stopped"):
        await unloading


async def test_weights_that_were_lost_are_loaded_again(slots, llm):
    await slots.load("a", "/a")
    await slots.load("b", "/b")
    await slots.load_again()
    assert llm.calls[2:] == [("remove", 1), ("add", "a"), ("remove", 2), ("add", "b")]
