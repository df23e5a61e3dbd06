"""Read on a thread of its own, a little ahead, so that neither memory nor the loop fills up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import CancelledError as FutureCancelled
from typing import Final, TypeVar

T = TypeVar("T")
_AHEAD: Final = 4


async def read_ahead(source: Iterable[T]) -> AsyncIterator[T]:
    """Yield what a blocking source yields, from a thread that stays a few pieces ahead; raises its OSError."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[T] | OSError | None] = asyncio.Queue(_AHEAD)

    def put(item: tuple[T] | OSError | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()

    def read() -> None:
        with contextlib.suppress(RuntimeError, FutureCancelled):  # the loop is gone: nobody reads on
            try:
                for piece in source:
                    put((piece,))
                put(None)
            except OSError as error:
                put(error)

    threading.Thread(target=read, name="trunnion-input", daemon=True).start()
    while (item := await queue.get()) is not None:
        if isinstance(item, OSError):
            raise item
        yield item[0]
