"""Close the doors of running applications before Serve takes their paths away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from ray import serve

from . import _ray_private

_log = logging.getLogger("trunnion.serve")
_MARGIN: Final = 5.0
"""Seconds beyond what requests in flight have, for engines to stop and answers to arrive."""


def close_doors(drains: Mapping[str, Mapping[str, float]], *, most: float | None = None) -> None:
    """Have applications refuse new requests with 503 and end those they have; return once they have.

    Serve alone, told to delete an application, first forgets its path: whoever asks then is told 404 in plain text, and
    what outlasts the time replicas have breaks off. Applications whose ingress is a program of the user's are left to
    Serve: it may still need the models behind it.

    Args:
        drains: For each application, by name, the seconds that requests in flight have, by deployment.
        most: Seconds to wait at most; the replicas go on by themselves.
    """
    with ThreadPoolExecutor(1) as thread:  # the caller's may have an event loop that runs, as in a notebook
        thread.submit(asyncio.run, _close_all(drains, most)).result()


async def _close_all(drains: Mapping[str, Mapping[str, float]], most: float | None) -> None:
    closing = [asyncio.create_task(_close(name, seconds)) for name, seconds in drains.items()]
    if closing:
        await asyncio.wait(closing, timeout=most)
    for task in closing:
        task.cancel()
    for error in await asyncio.gather(*closing, return_exceptions=True):
        if isinstance(error, Exception):  # it was no application of ours, or is not running
            _log.debug("an application was not closed before it was deleted: %s", error)


async def _close(application: str, seconds: Mapping[str, float]) -> None:
    ingress = await asyncio.to_thread(serve.get_app_handle, application)
    own = ingress.deployment_name
    answers = await _tell(ingress, seconds.get(own, 0.0))
    if not any(answer is None for answer in answers):
        return
    behind = (serve.get_deployment_handle(name, application) for name in seconds if name != own)
    await asyncio.gather(*(_tell(handle, seconds[handle.deployment_name]) for handle in behind), return_exceptions=True)


async def _tell(handle: Any, drain: float) -> list[Any]:
    return await _ray_private.ask_all(handle, "close_doors", drain, seconds=drain + _MARGIN)
