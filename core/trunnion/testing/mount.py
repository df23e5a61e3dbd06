"""Hold one engine for the tests of a class, on an event loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

import pytest
from pydantic import BaseModel

from trunnion.engine import Engine, EngineInfo, LoadReport, ReportsLoad
from trunnion.pipeline import Pipeline
from trunnion.plugin import EnginePlugin
from trunnion.registry import get_registry, validate_config
from trunnion.spec import EngineSpec
from trunnion.sync import LoopThread

T = TypeVar("T")
logger = logging.getLogger("trunnion.testing")
SOON = 1.0
"""Seconds within which a slot must be free again."""
_TRIES = 3


class Mount:
    """Start a pipeline when it is first asked for, and again if a test stopped it.

    Attributes:
        spec: What is started.
        patience: Seconds after which what a test waits for counts as hanging; a start may take ten times as long.
    """

    def __init__(self, spec: EngineSpec, *, patience: float = 120.0) -> None:
        self.spec = spec
        self.patience = patience
        self._thread: LoopThread | None = None
        self._pipeline: Pipeline | None = None

    def ready(self) -> Self:
        """Start the engine if none runs, and return this."""
        if self._pipeline is None:
            self._thread = LoopThread("trunnion-kit")
            self._pipeline = Pipeline(self.spec)
            try:
                self.run(self._pipeline.start(), timeout=10 * self.patience)
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """Stop the engine and end its loop. Idempotent."""
        thread, pipeline, self._thread, self._pipeline = self._thread, self._pipeline, None, None
        if thread is None:
            return
        try:
            if pipeline is not None:
                thread.submit(pipeline.stop()).result(self.patience)
        finally:
            thread.close()

    def abandon(self) -> None:
        """Close what may not close, and go on in any case."""
        try:
            self.close()
        except Exception:
            logger.exception("the engine could not be stopped")

    @property
    def pipeline(self) -> Pipeline:
        """Return the started pipeline."""
        assert self._pipeline is not None, "the engine was stopped"
        return self._pipeline

    @property
    def engine(self) -> Engine:
        """Return the started engine."""
        return self.pipeline.engine

    @property
    def info(self) -> EngineInfo:
        """Return what the engine said of itself when it started."""
        return self.pipeline.info

    @property
    def plugin(self) -> EnginePlugin:
        """Return what the plugin registered."""
        return get_registry().engine(self.spec.engine)

    def settings(self) -> BaseModel:
        """Return the engine's settings, its defaults among them."""
        return validate_config(self.plugin.config, self.spec.config, where=self.spec.engine)

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        """Run a coroutine on the engine's loop. Fails the test where it takes longer than ``timeout`` seconds."""
        assert self._thread is not None
        timeout = self.patience if timeout is None else timeout
        future = self._thread.submit(coroutine)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # the coroutine's own
            future.cancel()
            pytest.fail(f"nothing came for {timeout:g} seconds; the engine hangs, or blocks its event loop")

    def load(self) -> LoadReport | None:
        """Return the engine's load; None if it reports none."""
        return self.engine.load() if isinstance(self.engine, ReportsLoad) else None

    async def settled(self, seconds: float = SOON) -> LoadReport | None:
        """Wait until nothing runs or waits, at most so long, and return the last report."""
        end = time.monotonic() + seconds
        while (report := self.load()) is not None and (report.running or report.waiting):
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.02)
        return report


async def best_of(attempt: Callable[[], Awaitable[str | None]]) -> str | None:
    """Return None once an attempt says nothing is wrong, else what the last one said.

    A machine that stalls for a second now and then fails no engine; an engine that is late fails every time.
    """
    wrong: str | None = None
    for _ in range(_TRIES):
        wrong = await attempt()
        if wrong is None:
            return None
    return wrong
