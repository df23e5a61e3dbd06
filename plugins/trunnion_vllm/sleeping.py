"""Put vLLM to sleep and wake it: no request is lost on the way down, none is accepted while it sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from trunnion.errors import InvalidArgument, Transient, UnsupportedFeature

from .errors import MAPPED

CAPABILITY: Final = "sleeps/1"
WHY_NOT_ASKED: Final = 'it takes engine_kwargs={"enable_sleep_mode": true}'
WHY_NOT_ON_CPU: Final = "vLLM's CPU build cannot give memory back"
DISCARD: Final = 2
"""The level that throws the weights away, so that waking reads them from disk again."""


class Sleeper:
    """Hold whether the engine is awake, and move it between the two.

    New requests are refused from the moment sleep is asked for: one that waited inside a sleeping engine would hang
    until someone wakes it, and nobody would be told why.
    """

    def __init__(self) -> None:
        """Start awake."""
        self._level = 0
        self._change = asyncio.Lock()

    @property
    def asleep(self) -> bool:
        """Tell whether requests are refused: asleep, or about to be."""
        return self._level > 0

    def refuse_asleep(self) -> None:
        """Raise :class:`Transient` unless awake."""
        if self._level:
            raise Transient("the vLLM engine sleeps; wake() it first", code="engine_asleep")

    async def sleep(self, llm: Any, level: int, drained: Callable[[], Awaitable[None]]) -> None:
        """Wait for what is in flight, then let vLLM give its memory back. Idempotent for the same level.

        Cancelled while it waits, the engine is awake as before.

        Raises:
            UnsupportedFeature: vLLM was started without sleep mode.
            InvalidArgument: There is no such level, or the engine sleeps at another one.
        """
        if level not in (1, DISCARD):
            raise InvalidArgument(f"level must be 1 (keep the weights in CPU memory) or 2, not {level}", param="level")
        if not getattr(llm.vllm_config.model_config, "enable_sleep_mode", False):
            raise UnsupportedFeature(f"this engine cannot sleep: {WHY_NOT_ASKED}, on a GPU", param="level")
        async with self._change:
            if self._level == level:
                return
            if self._level:
                raise InvalidArgument(f"the engine sleeps at level {self._level}; wake() it first", param="level")
            self._level = level
            try:
                await drained()
                with MAPPED:
                    await llm.sleep(level=level)
            except BaseException:
                self._level = 0
                raise

    async def wake(self, llm: Any, adapters_again: Callable[[], Awaitable[None]]) -> None:
        """Bring the weights back, from CPU memory or from disk, adapters included. Idempotent."""
        async with self._change:
            if not self._level:
                return
            with MAPPED:
                if self._level == DISCARD:
                    # In this order, so that there is room to read the weights before the KV cache takes it.
                    await llm.wake_up(tags=["weights"])
                    await llm.collective_rpc("reload_weights")
                    await adapters_again()
                    await llm.wake_up(tags=["kv_cache"])
                else:
                    await llm.wake_up()
            self._level = 0
