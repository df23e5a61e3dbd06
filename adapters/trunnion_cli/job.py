"""Hold what one batch needs, and end its output well whatever happens."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trunnion import EngineSpec
from trunnion.rows import RowOptions

from .batch import BatchRun
from .console import say
from .interrupts import Interrupts
from .progress import Progress
from .row_input import RowInput
from .row_output import RowOutput
from .starting import opened


@dataclass(slots=True, kw_only=True)
class Job:
    """Describe one batch: what to run, where rows come from and go to.

    Attributes:
        spec, options: The engine, and how rows become requests.
        hooks: Settings of request hooks, by name.
        rows, output, progress: Where rows come from and go to, and who watches.
        concurrency: Rows in flight; None for twice what the engine finds useful.
        raise_errors: Whether the first failed row ends the run.
        n_in: Rows read so far.
    """

    spec: EngineSpec
    options: RowOptions
    rows: RowInput
    output: RowOutput
    progress: Progress
    hooks: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    raise_errors: bool = False
    n_in: int = 0

    async def guard(self, work: Awaitable[None], interrupts: Interrupts) -> None:
        """Do the work, then commit the output and print the account; else keep what there is as partial output."""
        try:
            await work
            self.output.commit()
        except BaseException as error:
            kept = self.output.abandon()
            if interrupts.signal:
                say("interrupted" + ("" if kept else "; nothing was written"))
            if kept is not None and not isinstance(error, BrokenPipeError):
                say(f"{self.output.rows} rows are kept in {kept}")
            raise
        where = "" if self.output.path is None else f"; written to {self.output.path}"
        say(self.progress.summary(self.n_in) + where)

    async def run_here(self) -> None:
        """Run on an engine of this process."""
        async with opened(self.spec, hooks=self.hooks) as pipeline:
            gc.collect()
            gc.freeze()  # a full collection over an engine's heap stalls the loop for around a second
            batch = BatchRun(
                pipeline,
                self.options,
                self.output,
                self.progress,
                concurrency=self.concurrency or 2 * pipeline.info.concurrency,
                raise_errors=self.raise_errors,
            )
            with self.progress:
                try:
                    await batch.run(self.rows.chunks())
                finally:
                    self.n_in = batch.n_in
