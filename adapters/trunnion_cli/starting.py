"""Tell, while an engine starts, what is going on: that it does, how its model is fetched, and then the stages."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

from trunnion import EngineSpec, FetchProgress, MediaPolicy, Pipeline, PipelineSpec

from .console import say
from .ticker import Ticker

_SECONDS: Final = 10.0
_QUIET: Final = 1.0
"""Seconds of a start before it is said that something starts."""
_WORTH_TELLING: Final = 0.5
"""Seconds of a start below which nobody wonders where they went."""
_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


class StartNotice:
    """Say "starting NAME ..." when that takes longer than a moment, and again every ten seconds. A context manager.

    Plain lines, also on a terminal: engines start processes meanwhile, and log.
    """

    def __init__(self, name: str) -> None:
        """Take what starts."""
        self._name = name
        self._began = self._said = time.monotonic()
        self._first = True
        self._held = False
        self._ticker = Ticker(self._tick, _QUIET, "trunnion-starting")

    def __enter__(self) -> Self:
        """Start the clock."""
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Say no more."""
        self._ticker.stop()

    def hold(self, *, held: bool) -> None:
        """Say nothing while something else is shown."""
        self._held = held

    def _tick(self) -> None:
        now = time.monotonic()
        if self._held or (not self._first and now - self._said < _SECONDS):
            return
        say(f"starting {self._name} ..." + ("" if self._first else f" {now - self._began:.0f} s"))
        self._first, self._said = False, now


class FetchBar:
    """Show how a model is fetched: a bar on a terminal, else a line every ten seconds. Called from any thread."""

    def __init__(self, notice: StartNotice | None = None) -> None:
        self._notice = notice
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._said = time.monotonic()

    def __call__(self, progress: FetchProgress) -> None:
        """Show one report."""
        new = progress.phase != self._phase
        self._phase = progress.phase
        if self._notice is not None:
            self._notice.hold(held=progress.total is None or progress.done < progress.total)
        if sys.stderr.isatty():
            self._draw(progress)
        elif (new and progress.phase == "waiting") or time.monotonic() - self._said >= _SECONDS:
            self._said = time.monotonic()
            say(describe(progress))

    def _draw(self, progress: FetchProgress) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        text = f"{progress.phase} {progress.file}".strip()
        self._bar.update(self._task, description=text, completed=progress.done, total=progress.total)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(progress: FetchProgress) -> str:
    """Return one line about a fetch."""
    if progress.phase == "waiting":
        return f"another process on this node is fetching {progress.reference}; waiting for it"
    of = "" if progress.total is None else f" of {size(progress.total)}"
    file = f", {progress.file}" if progress.file else ""
    return f"{progress.phase} {progress.reference}: {size(progress.done)}{of}{file}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


async def start_pipeline(spec: PipelineSpec, *, quiet: bool = False) -> Pipeline:
    """Start a pipeline, telling what it does meanwhile and how long each stage took; ``quiet`` leaves that line out."""
    notice = StartNotice(spec.engine.engine)
    bar = FetchBar(notice)
    with notice if not quiet else contextlib.nullcontext():
        try:
            pipeline = Pipeline(spec, on_progress=bar)
            await pipeline.start()
        finally:
            bar.close()
    startup = pipeline.startup
    fetched = any(stage.name == "fetch model" for stage in startup.stages)
    if not quiet and (fetched or startup.seconds >= _WORTH_TELLING):
        say(f"{spec.engine.engine} {startup}")
    return pipeline


def starter() -> Callable[[PipelineSpec], Awaitable[Pipeline]]:
    """Return what starts pipelines for a supervisor, and tells of the first one alone."""
    first = True

    async def start(spec: PipelineSpec) -> Pipeline:
        nonlocal first
        pipeline = await start_pipeline(spec, quiet=not first)
        first = False
        return pipeline

    return start


@asynccontextmanager
async def opened(
    spec: EngineSpec,
    *,
    hooks: Mapping[str, Any] | None = None,
    media: MediaPolicy | None = None,
    quiet: bool = False,
) -> AsyncIterator[Pipeline]:
    """Open a pipeline as :func:`start_pipeline` does, and stop it at the end of the block."""
    whole = PipelineSpec(engine=spec, hooks=hooks or {}, media=media or MediaPolicy())
    pipeline = await start_pipeline(whole, quiet=quiet)
    try:
        yield pipeline
    finally:
        await pipeline.stop()
