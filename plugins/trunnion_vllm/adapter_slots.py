"""Load and unload LoRA adapters while requests run, and keep count of who uses which."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from trunnion.engine import AdapterRef
from trunnion.errors import AdapterNotFound, Cancelled, Overloaded

from .errors import MAPPED


class Slot:
    """Hold one adapter as vLLM knows it, and the number of requests in flight on it."""

    __slots__ = ("_idle", "name", "path", "request", "users")

    def __init__(self, name: str, path: str, request: Any) -> None:
        """Take the name the user gave, the path, and the LoRARequest made of them."""
        self.name = name
        self.path = path
        self.request = request
        self.users = 0
        self._idle: asyncio.Event | None = None

    def release(self) -> None:
        """Count a request out."""
        self.users -= 1
        if not self.users and self._idle is not None:
            self._idle.set()

    async def idle(self) -> None:
        """Return when no request uses the adapter; called once it is out of the table, so that none is added."""
        if self.users:
            self._idle = asyncio.Event()
            await self._idle.wait()


class AdapterSlots:
    """Hold the loaded adapters by name.

    Unloading first hides the name, then waits until the requests in flight on the adapter have ended, then frees the
    slot: vLLM loads an adapter again by itself as soon as a running request of it takes a further step, so a slot
    taken from under a request would neither stay free nor be listed. Operations on one name run one after the other,
    on different names side by side. A caller that is cancelled stops waiting; what it asked for is done all the same.
    """

    def __init__(self) -> None:
        """Start empty, without a limit."""
        self.limit: int | None = None
        self._llm: Any = None
        self._slots: dict[str, Slot] = {}
        self._taken: set[int] = set()  # ids that vLLM holds, loads or still has to give up
        self._used_names: Counter[str] = Counter()
        self._next_id = 1
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, llm: Any, *, limit: int | None) -> None:
        """Take the AsyncLLM that loads, and how many adapters it may hold (None: it swaps them in and out)."""
        self._llm = llm
        self.limit = limit

    async def close(self) -> None:
        """Give up what is under way; whoever waits for it gets :class:`Cancelled`."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names in the order they were loaded."""
        return tuple(self._slots)

    def refs(self) -> list[AdapterRef]:
        """Return names with their paths."""
        return [AdapterRef(name=slot.name, path=slot.path) for slot in self._slots.values()]

    def lease(self, name: str) -> Slot:
        """Return the adapter with one more user; to be released. Raises :class:`AdapterNotFound`."""
        slot = self._find(name)
        slot.users += 1
        return slot

    def public_name(self, vllm_name: str | None) -> str | None:
        """Return the user's name for the name under which vLLM holds an adapter."""
        held = (slot.name for slot in self._slots.values() if slot.request.lora_name == vllm_name)
        return next(held, vllm_name)

    async def load(self, name: str, path: str) -> None:
        """Load an adapter; idempotent for the same path, another path replaces it for requests that come after.

        Raises:
            Overloaded: Every slot is taken.
            AdapterNotFound: There is no adapter at the path.
            Cancelled: The engine was stopped meanwhile.
        """
        await self._finish(self._load(name, os.path.expanduser(path)))  # noqa: PTH111, ASYNC240 - no I/O

    async def unload(self, name: str) -> None:
        """Unload an adapter: unknown to new requests at once, gone when this returns.

        Raises:
            AdapterNotFound: No such adapter is loaded.
            Cancelled: The engine was stopped meanwhile.
        """
        slot = self._find(name)
        del self._slots[name]
        await self._finish(self._unload(slot))

    async def load_again(self) -> None:
        """Bring every adapter's weights back into vLLM, which lost them."""
        for slot in self._slots.values():
            with MAPPED:
                await self._llm.remove_lora(slot.request.lora_int_id)
                await self._llm.add_lora(slot.request)

    async def _load(self, name: str, path: str) -> None:
        async with self._lock(name):
            held = self._slots.get(name)
            if held is not None and held.path == path:
                return
            if held is not None and self._full:  # its slot is needed for the one that replaces it
                await self._retire(self._slots.pop(name))
                try:
                    await self._place(name, path)
                except Exception:
                    await self._place(name, held.path)
                    raise
                return
            replaced = await self._place(name, path)
            if replaced is not None:
                self._keep(self._retire(replaced))

    async def _unload(self, slot: Slot) -> None:
        async with self._lock(slot.name):
            await self._retire(slot)

    @property
    def _full(self) -> bool:
        return self.limit is not None and len(self._taken) >= self.limit

    async def _place(self, name: str, path: str) -> Slot | None:
        """Load an adapter and put it into the table; return the one that bore the name until then."""
        if self._full:
            leaving = len(self._taken) > len(self._slots)
            names = ", ".join(self._slots) or "none"
            message = (
                f"all {self.limit} adapter slots are taken (loaded: {names}); unload one, or raise "
                f"engine_kwargs.max_loras"
            )
            if leaving:
                message = f"all {self.limit} adapter slots are taken, of which some come or go right now; try again"
            raise Overloaded(message, param="adapter", retryable=leaving)
        slot = Slot(name, path, self._request(name, path))
        number = slot.request.lora_int_id
        self._taken.add(number)
        try:
            with MAPPED:
                await self._llm.add_lora(slot.request)
        except BaseException:
            self._taken.discard(number)
            raise
        replaced = self._slots.get(name)
        self._slots[name] = slot
        return replaced

    async def _retire(self, slot: Slot) -> None:
        await slot.idle()
        with MAPPED:
            await self._llm.remove_lora(slot.request.lora_int_id)
        self._taken.discard(slot.request.lora_int_id)

    def _request(self, name: str, path: str) -> Any:
        """Return a LoRARequest that vLLM has not seen.

        vLLM tells adapters apart by name, in a batch and in the prefix cache alike: under a name that is used again,
        the next adapter would be given the cached keys and values of the one before.
        """
        from . import _vllm

        number, self._next_id = self._next_id, self._next_id + 1
        self._used_names[name] += 1
        again = self._used_names[name]
        unique = name if again == 1 else f"{name}#{again}"
        return _vllm.LoRARequest(lora_name=unique, lora_int_id=number, lora_path=path)

    def _find(self, name: str) -> Slot:
        slot = self._slots.get(name)
        if slot is None:
            loaded = ", ".join(self._slots) or "none"
            raise AdapterNotFound(f"no adapter {name!r} is loaded; loaded: {loaded}", param="adapter")
        return slot

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report what its caller gave up

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._keep(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Cancelled("the engine was stopped") from None
            raise
