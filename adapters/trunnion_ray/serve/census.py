"""Count the replicas behind a gateway for whoever looks: Serve is asked only then, and waited for a moment at most."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from ray import serve

_log = logging.getLogger("trunnion.serve")
_PERIOD: Final = 1.0
"""Seconds for which a count is good enough."""
_PATIENCE: Final = 2.0
"""Seconds to wait for Serve's answer."""
_RUNNING: Final = "RUNNING"


class Census:
    """Keep the number of running replicas of each model in ``notes["replicas"]``, as long as it is known."""

    def __init__(self, deployments: Mapping[str, str], notes: MutableMapping[str, Any]) -> None:
        """Take the deployments by the models' names, and the notes; inside a replica of their application."""
        self._application = serve.get_replica_context().app_name
        self._deployments = deployments
        self._notes = notes
        self._asking: asyncio.Task[None] | None = None
        self._counted = -_PERIOD

    async def look(self) -> None:
        """Count again unless that was done a moment ago. What Serve does not tell in time is not in the notes."""
        if time.monotonic() - self._counted < _PERIOD:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        answered, _ = await asyncio.wait([self._asking], timeout=_PATIENCE)
        if not answered:  # better nothing than what was true some time ago
            self._notes.pop("replicas", None)

    async def _ask(self) -> None:
        began = time.monotonic()
        try:
            told = (await asyncio.to_thread(serve.status)).applications[self._application].deployments
        except Exception as error:  # noqa: BLE001 - Serve may be starting or ending, and it is only a note
            _log.debug("Serve does not tell how many replicas run: %s", error)
            self._notes.pop("replicas", None)
            return
        self._notes["replicas"] = {
            model: told[name].replica_states.get(_RUNNING, 0)
            for model, name in self._deployments.items()
            if name in told
        }
        self._counted = began

    def close(self) -> None:
        """Stop counting."""
        if self._asking is not None:
            self._asking.cancel()
