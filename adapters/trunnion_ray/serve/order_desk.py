"""Bring an order to every replica of a model, and to replicas that start later what still holds of it.

Serve sends a request to one replica. An application whose replicas must agree has one small deployment beside them, the
desk: replicas ask it for orders (a call that waits), carry them out and report. It holds nothing that they do not know:
where it is restarted, they tell it what they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trunnion.errors import Transient, TrunnionError
from trunnion_http.administration import Order

from .errors import unwrap

_log = logging.getLogger("trunnion.serve")

_WAIT: Final = 2.0
"""Seconds a replica's question waits for orders."""
_GONE: Final = 8.0
"""Seconds without a question after which a replica counts as gone."""
_RETRY: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Answer a replica: the desk's epoch, the number of the last order, and what is to be done, by number."""

    epoch: str
    last: int
    orders: Mapping[int, Order] = field(default_factory=dict)


class OrderDesk:
    """Be the desk. A Serve deployment of one replica; everything it does is on its event loop."""

    def __init__(self) -> None:
        self._epoch = uuid.uuid4().hex
        self._orders: dict[int, Order] = {}
        self._last = 0
        self._adapters: dict[str, str] = {}
        self._heard: dict[str, float] = {}
        self._done: dict[str, int] = {}  # by replica: every order up to this number
        self._failures: dict[int, TrunnionError] = {}
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()

    async def check_health(self) -> None:
        """Live."""

    async def ask(self, replica: str, epoch: str | None, seen: int, adapters: Mapping[str, str]) -> Orders:
        """Return the orders after ``seen``; waits a little for one.

        A replica that does not know this desk yet (``epoch``) tells which adapters it was ordered to load, and gets
        what holds: the adapters of all of them.
        """
        self._heard[replica] = time.monotonic()
        if epoch != self._epoch:
            for name, path in adapters.items():
                self._adapters.setdefault(name, path)
            self._done[replica] = self._last
            missing = {name: path for name, path in self._adapters.items() if adapters.get(name) != path}
            loads = [Order(verb="load_adapter", name=name, path=path) for name, path in missing.items()]
            return Orders(epoch=self._epoch, last=self._last, orders=dict(enumerate(loads, -len(loads))))
        if seen >= self._last:
            news = self._news
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await news.wait()
            self._heard[replica] = time.monotonic()
        later = {number: order for number, order in self._orders.items() if number > seen}
        return Orders(epoch=self._epoch, last=self._last, orders=later)

    async def report(self, replica: str, number: int, error: TrunnionError | None) -> None:
        """Take note that a replica has carried an order out, or could not."""
        self._heard[replica] = time.monotonic()
        if error is not None:
            self._failures.setdefault(number, error)
        self._done[replica] = max(self._done.get(replica, 0), number)
        self._tell()

    async def order(self, order: Order) -> int:
        """Have every replica carry an order out; return how many have. One order is under way at a time.

        Raises:
            TrunnionError: A replica could not. What it loaded into others is unloaded again.
            Transient: No replica is there.
        """
        async with self._turn:
            before = self._adapters.get(order.name)
            if order.verb == "load_adapter":
                self._adapters[order.name] = order.path  # a replica that comes meanwhile must not miss it
            try:
                count = await self._spread(order)
            except TrunnionError:
                if order.verb == "load_adapter":
                    del self._adapters[order.name]
                    if before is not None:
                        self._adapters[order.name] = before
                    else:
                        with contextlib.suppress(TrunnionError):
                            await self._spread(Order(verb="unload_adapter", name=order.name))
                raise
            if order.verb == "unload_adapter":
                self._adapters.pop(order.name, None)
            return count

    async def _spread(self, order: Order) -> int:
        replicas = self._alive()
        if not replicas:
            raise Transient("no replica of the model is running yet; try again", retry_after=1.0)
        self._last += 1
        number = self._last
        self._orders[number] = order
        self._tell()
        try:
            while not all(self._done.get(name, 0) >= number for name in self._alive() & replicas):
                news = self._news
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WAIT):
                        await news.wait()
        finally:
            failure = self._failures.pop(number, None)
            for old in [done for done in self._orders if done < min(self._done.values(), default=0)]:
                del self._orders[old]
        if failure is not None:
            raise failure
        return len(self._alive() & replicas)

    def _alive(self) -> set[str]:
        old = time.monotonic() - _GONE
        for name in [name for name, heard in self._heard.items() if heard < old]:
            del self._heard[name]
            self._done.pop(name, None)
        return set(self._heard)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class DeskMember:
    """Be a replica's side: ask for orders while it lives, carry them out one after the other, report."""

    def __init__(self, desk: Any, replica: str, carry_out: Callable[[Order], Awaitable[None]]) -> None:
        """Take the desk's handle, the replica's own id, and what carries an order out here."""
        self._desk = desk
        self._replica = replica
        self._carry_out = carry_out
        self._adapters: dict[str, str] = {}
        self._epoch: str | None = None
        self._seen = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._caught_up = asyncio.Event()
        self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def order(self, order: Order) -> None:
        """Have every replica carry an order out. Raises what one of them failed with."""
        try:
            await self._desk.order.remote(order)
        except Exception as error:
            raise unwrap(error) from error

    async def caught_up(self, seconds: float) -> bool:
        """Wait until what the others were ordered before is done here as well; returns whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._caught_up.wait()
        return self._caught_up.is_set()

    def close(self) -> None:
        """Stop asking."""
        for task in (self._asking, *self._tasks):
            task.cancel()

    async def _ask(self) -> None:
        while True:
            try:
                answer: Orders = await self._desk.ask.remote(self._replica, self._epoch, self._seen, self._adapters)
            except Exception as error:  # noqa: BLE001 - the desk is being started again
                _log.debug("the desk does not answer: %s", error)
                await asyncio.sleep(_RETRY)
                continue
            self._epoch = answer.epoch
            self._seen = answer.last
            tasks = [self._spawn(self._do(number, order)) for number, order in sorted(answer.orders.items())]
            if not self._caught_up.is_set():
                self._spawn(self._catch_up(tasks))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _catch_up(self, orders: list[asyncio.Task[None]]) -> None:
        """Wait for the first orders, while further questions tell the desk that the replica lives."""
        await asyncio.gather(*orders, return_exceptions=True)
        self._caught_up.set()

    async def _do(self, number: int, order: Order) -> None:
        """Carry an order out, in its turn, while further questions tell the desk that the replica lives."""
        failure: TrunnionError | None = None
        async with self._turn:
            try:
                await self._carry_out(order)
            except TrunnionError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - told to whoever gave the order
                _log.exception("an order could not be carried out: %s", order)
                failure = unwrap(error)
            else:
                if order.verb == "load_adapter":
                    self._adapters[order.name] = order.path
                elif order.verb == "unload_adapter":
                    self._adapters.pop(order.name, None)
        if number < 0:  # what others had loaded before this replica came: nobody waits for it
            if failure is not None:
                _log.warning("the adapter %r could not be loaded here: %s", order.name, failure)
            return
        for _ in range(10):
            try:
                await self._desk.report.remote(self._replica, number, failure)
            except Exception as error:  # noqa: BLE001 - as above
                _log.debug("the desk takes no report: %s", error)
                await asyncio.sleep(_RETRY)
            else:
                return
