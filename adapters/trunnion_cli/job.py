"""Hold what one batch needs, and end its output well whatever happens."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunnion import EngineSpec, MediaPolicy, PipelineSpec
from trunnion.rows import RowOptions
from trunnion_batch.account import Account
from trunnion_batch.answering import Answerer, Share
from trunnion_batch.journal import Journal, JournalStats
from trunnion_batch.journal.probe import is_empty
from trunnion_batch.prefix_order import PrefixQueue
from trunnion_batch.recovery import Recovery
from trunnion_batch.row_input import RowInput
from trunnion_batch.row_output import RowOutput
from trunnion_batch.run import Asked, BatchRun
from trunnion_batch.supervisor import Supervisor
from trunnion_batch.templates import RowTemplate

from .console import say
from .going_on import going_on
from .interrupts import Interrupts
from .progress import Progress
from .starting import starter
from .summary import ended_by, write_summary


@dataclass(slots=True, kw_only=True)
class Job:
    """Describe one batch: what to run, where rows come from and go to.

    Attributes:
        spec, options: The engine, and how rows become requests.
        further: The engines of further models and how their rows become requests, by name.
        hooks: Settings of request hooks, by name.
        media: Limits of media, and the hosts they may be fetched from.
        rows, output: Where rows come from and go to.
        dead_letters: Takes the rows that failed as well.
        account, progress: Who counts and who watches.
        preprocess, postprocess: Make columns before and after the engine.
        concurrency: Rows in flight; None for twice what the engine finds useful.
        prefix_window: Rows held at once, to be given to the engine in the order of their prompts.
        raise_errors: Whether the first failed row ends the run.
        recovery: What happens when something fails that is not a row's own fault.
        journal, cache: URIs of what is known already.
        deduplicate, share: Whether rows share answers, and which do.
        summary: Where the account is written to.
        n_in: Rows read so far.
        on_ray: Whether the engines run there.
        partial: Whether the run was ended early, by a person.
        kept: What the journal has, where this process holds it.
    """

    spec: EngineSpec
    options: RowOptions
    rows: RowInput
    output: RowOutput
    progress: Progress
    account: Account
    dead_letters: RowOutput | None = None
    further: Mapping[str, tuple[EngineSpec, RowOptions]] = field(default_factory=dict)
    hooks: Mapping[str, Any] = field(default_factory=dict)
    media: MediaPolicy = field(default_factory=MediaPolicy)
    preprocess: RowTemplate | None = None
    postprocess: RowTemplate | None = None
    concurrency: int | None = None
    prefix_window: int | None = None
    raise_errors: bool = False
    recovery: Recovery = field(default_factory=Recovery)
    journal: str | None = None
    cache: str | None = None
    deduplicate: bool = False
    share: Share = "deterministic"
    summary: Path | None = None
    on_ray: bool = False
    n_in: int = 0
    partial: bool = False
    kept: JournalStats = field(default_factory=JournalStats)
    facts: dict[str, Any] = field(default_factory=dict)

    async def guard(self, work: Awaitable[None], interrupts: Interrupts) -> None:
        """Do the work, then commit the output and print the account; else keep what there is as partial output."""
        try:
            await work
            if self.partial:
                self.facts |= ended_by()
                self._keep()
                self.progress.tell(self.n_in, partial=True)
                self._write_summary()
                return
            self.output.commit()
            if self.dead_letters is not None:
                self.dead_letters.commit()
        except BaseException as error:
            if interrupts.signal:
                say("interrupted" + ("" if self.output.rows else "; nothing was written"))
            self.partial = True
            self.facts |= ended_by(error)
            self._keep(error, quiet=isinstance(error, BrokenPipeError))
            self._write_summary()
            raise
        self.progress.tell(self.n_in, partial=False)
        for one in self._displaced():
            say(f"{one.displaced} was made by another run meanwhile and is left as it is: these rows are in {one.path}")
        if self.output.path is not None:
            say(f"written to {self.output.path}")
        for made in (self.output, self.dead_letters):
            if made is not None and made.leftover is not None:
                say(f"{made.leftover} of an earlier run is left: it has rows that are not in {made.path}")
        if self.dead_letters is not None and self.dead_letters.rows:
            say(f"{self.dead_letters.rows} failed rows are in {self.dead_letters.path}, to be run again")
        self._write_summary()

    def _displaced(self) -> list[RowOutput]:
        return [one for one in (self.output, self.dead_letters) if one is not None and one.displaced is not None]

    @property
    def displaced(self) -> bool:
        """Tell whether another run took the name of an output, so that the rows are beside it."""
        return bool(self._displaced())

    def _keep(self, error: BaseException | None = None, *, quiet: bool = False) -> None:
        """Keep what there is as partial output, and say how to go on."""
        kept = self.output.abandon()
        if self.dead_letters is not None:
            self.dead_letters.abandon()
        if quiet:
            return
        if kept is not None:
            say(f"{self.output.rows} rows are kept in {kept}")
        if self.journal is not None:
            line = going_on(self.journal, self._kept_answers(), error, "--on-error raise")
            if line is not None:
                say(line)
        elif self.partial and self.output.rows:
            say("what was answered is asked anew by another run; with --journal DIR a run goes on where it was stopped")

    def _kept_answers(self) -> int | None:
        """Return how many answers the journal has; None for some, on Ray, where this process does not hold it."""
        if self.on_ray:
            return 0 if is_empty(str(self.journal)) else None
        return self.kept.found + self.kept.recorded

    def _write_summary(self) -> None:
        if self.summary is None:
            return
        made = self.account.summary(
            self.n_in, partial=self.partial, engine=self.spec.engine, model=self.spec.model, **self.facts
        )
        if self.further:
            made["models"] = {
                name: {"engine": spec.engine, "model": spec.model} for name, (spec, _) in self.further.items()
            }
        write_summary(self.summary, made)

    @contextlib.contextmanager
    def journals(self) -> Iterator[tuple[Journal | None, Journal | None]]:
        """Open the journal and the cache. Raises :class:`ConfigError` before an engine spends its start-up time."""
        with contextlib.ExitStack() as stack:
            opened: list[Journal | None] = []
            for uri, share in ((self.journal, False), (self.cache, True)):
                opened.append(
                    None if uri is None else stack.enter_context(contextlib.closing(Journal(uri, share=share)))
                )
            journal, cache = opened
            if journal is not None and journal.stats.found:
                say(f"{journal.stats.found} answers of earlier runs are in the journal")
            if journal is not None:
                self.kept = journal.stats
            yield journal, cache

    async def run_here(self, interrupts: Interrupts) -> None:
        """Run on an engine of this process. The first Ctrl-C lets what is in flight finish."""
        async with contextlib.AsyncExitStack() as stack:
            journal, cache = stack.enter_context(self.journals())
            stack.callback(setattr, interrupts, "gently", None)
            asked: list[Asked] = []
            flight = 0
            for spec, options in ((self.spec, self.options), *self.further.values()):
                answerer, useful = await self._opened(stack, spec, journal, cache)
                asked.append(Asked(answerer, options))
                flight += useful
            gc.collect()
            gc.freeze()  # a full collection over an engine's heap stalls the loop for around a second
            batch = BatchRun(
                asked[0].answerer,
                self.options,
                self.output,
                self.account,
                concurrency=max(self.concurrency or flight, self.prefix_window or 0),
                raise_errors=self.raise_errors,
                dead_letters=self.dead_letters,
                preprocess=self.preprocess,
                postprocess=self.postprocess,
                journals=tuple(one for one in (journal, cache) if one is not None),
                further=dict(zip(self.further, asked[1:], strict=True)),
            )
            interrupts.drain_with(batch.drain, lambda: batch.in_flight)
            self.progress.live = batch.answered
            self.progress.in_flight = lambda: batch.in_flight
            self.progress.replacing = lambda: any(one.answerer.supervisor.replacing for one in asked)
            self.progress.replicas = len(asked)
            with self.progress:
                try:
                    await batch.run(self.rows.chunks())
                finally:
                    self.n_in = batch.n_in
                    self.partial = batch.stopped
                    self.facts["engine_restarts"] = sum(one.answerer.supervisor.deaths for one in asked)

    async def _opened(
        self, stack: contextlib.AsyncExitStack, engine: EngineSpec, journal: Journal | None, cache: Journal | None
    ) -> tuple[Answerer, int]:
        """Start an engine, to be stopped at the end of the stack; returns how many rows it likes to have in flight."""
        spec = PipelineSpec(engine=engine, hooks=self.hooks, media=self.media)
        supervisor = Supervisor(spec, self.recovery, opener=starter())
        stack.push_async_callback(supervisor.stop)
        pipeline = await supervisor.start()
        concurrency = self.concurrency or 2 * pipeline.info.concurrency
        answerer = Answerer(
            supervisor,
            spec,
            journal=journal,
            cache=cache,
            deduplicate=self.deduplicate,
            share=self.share,
            order=None if self.prefix_window is None else PrefixQueue(concurrency),
        )
        return answerer, concurrency
