"""Know more LoRA adapters than an engine holds: load one at its first use, unload what was not used for longest.

Where all that are held are in use, the one that has been there longest takes no more requests, and makes room once
those in flight on it have ended: an adapter that is always busy cannot keep the others out.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from .engine import AdapterRef, Engine, HotAdapters
from .errors import AdapterNotFound, DeadlineExceeded, InternalError, Overloaded, TrunnionError

_SHOWN: Final = 20
"""Names that an error lists at most."""


class _Place:
    """Hold one adapter that the engine has, or is about to."""

    __slots__ = ("idle", "leaving", "loading", "name", "number", "users")

    def __init__(self, name: str, number: int = 0) -> None:
        self.name = name
        self.number = number  # of its load: what was loaded longest ago has the lowest
        self.users = 0
        self.leaving = False
        self.loading: asyncio.Future[None] | None = None
        self.idle: asyncio.Event | None = None

    def release(self) -> None:
        self.users -= 1
        if not self.users and self.idle is not None:
            self.idle.set()


class _Turn:
    """Hold those that wait for one adapter's place."""

    __slots__ = ("place", "users")

    def __init__(self) -> None:
        self.users = 0
        self.place: asyncio.Future[_Place] = asyncio.get_running_loop().create_future()


class AdapterShelf(Collection[str]):
    """Lend adapters to requests. A collection of the names that may be asked for; lives on the engine's loop."""

    def __init__(self, engine: Engine, loaded: Mapping[str, str], *, limit: int | None = None) -> None:
        """Take the adapters that the engine was started with, name to path; it holds ``limit`` at once at most.

        None leaves the limit to the engine: where it refuses one more as :class:`Overloaded`, room is made.
        """
        if not isinstance(engine, HotAdapters):
            raise TypeError(f"{type(engine).__name__} cannot load adapters while it runs")
        self._engine: HotAdapters = engine
        self._limit = limit
        self._paths = dict(loaded)
        self._places: OrderedDict[str, _Place] = OrderedDict(
            (name, _Place(name, number)) for number, name in enumerate(loaded, -len(loaded))
        )
        self._waiting: OrderedDict[str, _Turn] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.loads = 0
        self.unloads = 0

    def __contains__(self, name: object) -> bool:
        """Tell whether an adapter of that name may be asked for."""
        return name in self._paths

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that may be asked for."""
        return iter(tuple(self._paths))

    def __len__(self) -> int:
        """Return how many may be asked for."""
        return len(self._paths)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Return the names of those that the engine holds now."""
        return tuple(name for name, place in self._places.items() if place.loading is None and not place.leaving)

    def path(self, name: str) -> str | None:
        """Return where an adapter lies; None if there is none of that name."""
        return self._paths.get(name)

    @asynccontextmanager
    async def lent(self, name: str, *, deadline: float | None = None) -> AsyncGenerator[None, None]:
        """Keep an adapter loaded for the length of the block, having loaded it if need be.

        Raises:
            AdapterNotFound: There is none of that name, or its files are not there.
            DeadlineExceeded: ``deadline`` (seconds since the epoch) passed before it was there.
            TrunnionError: The engine refuses it.
        """
        place = self._places.get(name)
        if place is not None and place.loading is None and not place.leaving:
            place.users += 1
            self._places.move_to_end(name)
        else:
            try:
                async with asyncio.timeout(None if deadline is None else deadline - time.time()):
                    place = await self._acquire(name)
            except TimeoutError as error:
                message = f"the deadline passed before the adapter {name!r} was loaded"
                raise DeadlineExceeded(message, param="deadline") from error
        try:
            yield
        finally:
            place.release()

    def know(self, name: str, path: str) -> None:
        """Let an adapter be asked for, without loading it. One that is known keeps its path."""
        self._paths.setdefault(name, path)

    async def add(self, name: str, path: str) -> None:
        """Load an adapter, which may be asked for from then on; another path replaces the one of that name.

        Raises:
            AdapterNotFound: No adapter lies there.
            TrunnionError: The engine refuses it; what bore that name before still does.
        """
        before = self._paths.get(name)
        self._paths[name] = path
        try:
            if before not in (None, path) and name in self._places:
                async with self.lent(name):
                    await self._engine.load_adapter(AdapterRef(name=name, path=path))
            async with self.lent(name):
                pass
        except BaseException:
            if self._paths.get(name) == path:
                if before is None:
                    del self._paths[name]
                else:
                    self._paths[name] = before
            raise

    async def remove(self, name: str) -> None:
        """Forget an adapter: unknown to new requests at once, unloaded when those in flight on it have ended.

        Raises:
            AdapterNotFound: There is none of that name.
        """
        if self._paths.pop(name, None) is None:
            raise self._unknown(name)
        place = self._places.get(name)
        if place is not None:
            if not place.leaving:
                place.leaving = True
                self._keep(self._retire(place))
            while self._places.get(name) is place:
                await asyncio.wait(tuple(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    async def _acquire(self, name: str) -> _Place:
        if name not in self._paths:
            raise self._unknown(name)
        place = self._places.get(name)
        if place is None or place.leaving:
            place = await self._place(name)
        else:
            place.users += 1
            self._places.move_to_end(name)
        try:
            if place.loading is not None:
                await asyncio.shield(place.loading)
        except BaseException:
            place.release()
            raise
        return place

    async def _place(self, name: str) -> _Place:
        """Wait for a place, with one more user; the adapter may still be on its way into it."""
        turn = self._waiting.get(name)
        if turn is None:
            turn = self._waiting[name] = _Turn()
        turn.users += 1
        self._fill()
        try:
            return await asyncio.shield(turn.place)
        except BaseException:
            turn.users -= 1
            if turn.place.done() and not turn.place.exception():
                turn.place.result().release()
            raise

    def _fill(self) -> None:
        """Give free places to those that wait, in their order; make further ones free for the rest."""
        self._changed.set()
        self._changed = asyncio.Event()
        for name, turn in tuple(self._waiting.items()):
            if name in self._places:  # it is just leaving
                continue
            if self._limit is not None and len(self._places) >= self._limit:
                break
            del self._waiting[name]
            self._start(name, turn)
        leaving = sum(place.leaving for place in self._places.values())
        for _ in range(leaving, len(self._waiting)):
            place = self._victim()
            if place is None:
                break
            place.leaving = True
            self._keep(self._retire(place))

    def _start(self, name: str, turn: _Turn) -> None:
        path = self._paths.get(name)
        if path is None:  # it was removed while it waited
            turn.place.set_exception(self._unknown(name))
            turn.place.exception()  # seen: nobody may be waiting any more
            return
        place = self._places[name] = _Place(name)
        place.users = turn.users  # theirs before they run again: it must not leave in between
        turn.place.set_result(place)
        place.loading = asyncio.get_running_loop().create_future()
        self._keep(self._load(place, path, place.loading))

    async def _load(self, place: _Place, path: str, loading: asyncio.Future[None]) -> None:
        try:
            while True:
                try:
                    await self._engine.load_adapter(AdapterRef(name=place.name, path=path))
                    break
                except Overloaded:  # the engine holds fewer than we were told, or others take the places we make
                    await self._make_room(place)
        except asyncio.CancelledError:
            loading.cancel()
            self._failed(place)
            raise
        except Exception as error:  # noqa: BLE001 - told to those who wait for it
            loading.set_exception(_told(place.name, error))
            loading.exception()  # seen: nobody may be waiting for it any more
            self._failed(place)
            return
        self.loads += 1
        place.number = self.loads
        place.loading = None
        loading.set_result(None)
        self._fill()

    def _failed(self, place: _Place) -> None:
        self._places.pop(place.name, None)
        self._fill()

    async def _make_room(self, place: _Place) -> None:
        """Unload another adapter, or wait until one is loaded or unloaded. Raises what is being handled if none is."""
        victim = self._victim()
        if victim is not None:
            victim.leaving = True
            await self._retire(victim)
        elif all(other is place for other in self._places.values()):
            raise  # noqa: PLE0704 - the engine's own refusal
        else:
            await self._changed.wait()

    def _victim(self) -> _Place | None:
        """Return what shall make room: the idle one not used for longest, or else the one loaded longest ago."""
        there = [place for place in self._places.values() if place.loading is None and not place.leaving]
        idle = next((place for place in there if not place.users), None)
        return idle or min(there, key=lambda place: place.number, default=None)

    async def _retire(self, place: _Place) -> None:
        """Unload an adapter that takes no more requests, once those in flight on it have ended."""
        if place.loading is not None:
            await asyncio.wait([place.loading])
            if self._places.get(place.name) is not place:
                return
        if place.users:
            place.idle = asyncio.Event()
            await place.idle.wait()
        try:
            await self._engine.unload_adapter(place.name)
        except AdapterNotFound:
            pass  # unloaded behind our back: it is gone, which is what was wanted
        finally:
            if self._places.get(place.name) is place:
                del self._places[place.name]
            self.unloads += 1
            self._fill()

    async def close(self) -> None:
        """Give up what is being loaded or unloaded."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # an engine that died says so to its requests

    def _unknown(self, name: str) -> AdapterNotFound:
        names = list(self._paths)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        known = ", ".join(names[:_SHOWN]) + more or "none"
        return AdapterNotFound(f"there is no adapter {name!r}; there are: {known}", param="model")


def _told(name: str, error: Exception) -> TrunnionError:
    if isinstance(error, TrunnionError):
        return error
    failure = InternalError(f"the adapter {name!r} could not be loaded: {error}", param="model")
    failure.__cause__ = error
    return failure
