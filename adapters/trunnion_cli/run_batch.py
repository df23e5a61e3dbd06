"""Run one of OpenAI's batch files through an engine."""

from __future__ import annotations

import contextlib
import gc
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .batch_options import (
    JournalOption,
    MaxErrorRate,
    MaxRestarts,
    MaxUnreachable,
    OutageTimeout,
    Retries,
    RowTimeout,
    StallTimeout,
    Summary,
    recovery_settings,
    summary_path,
)
from .console import claim_stdout_bytes, say
from .interrupts import Interrupts, run_async
from .options import Adapters, Debug, Hooks, Settings, Verbose, build_spec, hook_settings
from .progress import Progress
from .summary import ended_by, write_summary

if TYPE_CHECKING:
    from trunnion import EngineSpec
    from trunnion_batch.account import Account
    from trunnion_batch.batch_files.files import LineFile, LineStream
    from trunnion_batch.journal import JournalStats
    from trunnion_batch.recovery import Recovery


def run_batch(
    *,
    source: Annotated[
        str, typer.Option("--input", "-i", metavar="FILE", help="Requests, one JSON object per line; - for stdin.")
    ],
    target: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Responses of the lines that succeeded; - for stdout.")
    ],
    errors: Annotated[
        str | None,
        typer.Option("--errors", "-e", metavar="FILE", help="Lines that failed; OUTPUT with .errors.jsonl."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAME", help="Engine plugin; if left out, the one that suits best."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Path or name of the model.")] = None,
    served_model_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What lines call the model; if left out, the last part of its name."),
    ] = None,
    settings: Settings = None,
    adapter: Adapters = None,
    hook: Hooks = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Lines in flight; twice what the engine finds useful.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End at the first line that is no request.")] = False,
    journal: JournalOption = None,
    max_error_rate: MaxErrorRate = None,
    retries: Retries = None,
    outage_timeout: OutageTimeout = None,
    row_timeout: RowTimeout = None,
    stall_timeout: StallTimeout = None,
    max_restarts: MaxRestarts = None,
    max_unreachable: MaxUnreachable = None,
    summary: Summary = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    verbose: Verbose = False,  # noqa: ARG001 - kept by its callback
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Answer the requests of an OpenAI batch file: chat, completions, embeddings, scores, rankings and labels.

    Responses are written as they come, into FILE.partial, which takes its name at the end. What was answered is kept in
    a journal beside it until then, so that a run that was stopped goes on when the same command is given again. It
    stays where lines failed in a way that may pass: with --overwrite the same command asks these alone. Ends with 1 if
    every line failed, and with 130 if Ctrl-C stopped it.
    """
    from trunnion_batch.account import Account
    from trunnion_batch.batch_files.files import LineFile, LineStream, open_input
    from trunnion_batch.places import check_apart, check_summary
    from trunnion_batch.row_output import check_output

    to_stdout = target == "-"
    if to_stdout and errors is None:
        raise typer.BadParameter("with --output - say where failed lines go: --errors FILE")
    failed = errors or str(Path(target).with_suffix(".errors.jsonl"))
    descriptor, total = open_input(source)
    own = journal is None and not to_stdout
    kept = f"{target}.journal" if own else journal
    account_file = summary_path(summary, target)
    check_output(target, source=source, overwrite=overwrite, what="--output", parquet=False)
    check_output(failed, source=source, overwrite=overwrite, what="--errors", stdout=False, parquet=False)
    check_apart([
        ("--input", source), ("--output", target), ("--errors", failed), ("--summary", account_file),
        ("--journal", kept), *((f"{name}.partial", f"{name}.partial") for name in (target, failed) if name != "-"),
    ])  # fmt: skip
    check_summary(account_file, overwrite=overwrite)
    spec = build_spec(engine, model, settings, adapter, batch=True)
    account = Account(max_error_rate=max_error_rate)
    recovery = recovery_settings(
        row_retries=retries,
        outage_timeout=outage_timeout,
        row_timeout=row_timeout,
        stall_timeout=stall_timeout,
        max_engine_restarts=max_restarts,
        max_unreachable_rows=max_unreachable,
    )
    job = _Job(
        spec=spec,
        hooks=hook_settings(hook),
        name=served_model_name or (Path(spec.model).name if spec.model else None),
        descriptor=descriptor,
        results=LineStream(claim_stdout_bytes())
        if to_stdout
        else LineFile(Path(target).expanduser(), overwrite=overwrite),
        errors=LineFile(Path(failed).expanduser(), overwrite=overwrite),
        account=account,
        progress=Progress(total, account, recovery),
        recovery=recovery,
        concurrency=concurrency,
        strict=strict,
        journal=kept,
        journal_ends=own,
        summary=account_file,
    )
    run_async(job.run)
    if job.partial:
        raise typer.Exit(130)
    if (job.n_in and not account.ok) or job.results.displaced or job.errors.displaced:
        raise typer.Exit(1)


@dataclass(slots=True, kw_only=True)
class _Job:
    """Hold what one run needs, and end its files well whatever happens."""

    spec: EngineSpec
    hooks: dict[str, Any]
    name: str | None
    descriptor: int
    results: LineFile | LineStream
    errors: LineFile
    account: Account
    progress: Progress
    recovery: Recovery
    concurrency: int | None
    strict: bool
    journal: str | None
    journal_ends: bool
    summary: Path | None
    n_in: int = 0
    partial: bool = False
    passing: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    kept: JournalStats | None = None

    async def run(self, interrupts: Interrupts) -> None:
        try:
            await self._answer(interrupts)
        except BaseException as error:
            self.partial = True
            self.facts |= ended_by(error)
            self._keep(error)
            self._write_summary()
            raise
        if self.partial:
            self.facts |= ended_by()
            self._keep()
        else:
            self.results.commit()
            self.errors.commit()
            if self.journal_ends and self.journal is not None and not self._may_go_on():
                shutil.rmtree(self.journal, ignore_errors=True)
        self.progress.tell(self.n_in, partial=self.partial)
        self._write_summary()
        for one in (self.results, self.errors):
            if one.displaced:
                say(f"{one.displaced} was made by another run meanwhile and is left as it is: see {one.path}")
        if not self.partial:
            say(f"{self.results.lines} responses" + (f" in {self.results.path}" if self.results.path else ""))
            say(f"{self.errors.lines} failed lines in {self.errors.path}")
            if self.journal is not None and self._may_go_on():
                say(
                    f"{self.passing} of them may be answered another time: the same command with --overwrite asks "
                    f"these alone, and takes the answers of the others from the journal {self.journal}"
                )

    def _may_go_on(self) -> bool:
        """Tell whether another run would have lines to ask and others to take from the journal."""
        return bool(self.passing and self._known_answers())

    def _known_answers(self) -> int:
        return 0 if self.kept is None else self.kept.found + self.kept.recorded

    def _keep(self, error: BaseException | None = None) -> None:
        kept = [str(path) for path in (self.results.abandon(), self.errors.abandon()) if path is not None]
        if kept:
            say(f"what there is so far: {', '.join(kept)}")
        if self.journal is not None:
            from .going_on import going_on

            line = going_on(self.journal, self._known_answers(), error, "--strict")
            if line is not None:
                say(line)

    def _write_summary(self) -> None:
        if self.summary is not None:
            facts = {**self.facts, "engine": self.spec.engine, "model": self.spec.model}
            made = self.account.summary(self.n_in, partial=self.partial, **facts)
            write_summary(self.summary, made)

    async def _answer(self, interrupts: Interrupts) -> None:
        from trunnion import PipelineSpec
        from trunnion_batch.batch_files import BatchFileRun
        from trunnion_batch.batch_files.files import read_lines
        from trunnion_batch.batch_files.model import SupervisedModel
        from trunnion_batch.journal import Journal
        from trunnion_batch.read_ahead import read_ahead
        from trunnion_batch.supervisor import Supervisor

        from .starting import starter

        spec = PipelineSpec(engine=self.spec, hooks=self.hooks)
        with contextlib.ExitStack() as stack:
            journal = None
            if self.journal is not None:
                journal = stack.enter_context(contextlib.closing(Journal(self.journal, readable=lambda _: True)))
                self.kept = journal.stats
                if journal.stats.found:
                    say(f"{journal.stats.found} answers of earlier runs are in the journal")
            supervisor = Supervisor(spec, self.recovery, opener=starter())
            try:
                pipeline = await supervisor.start()
                gc.collect()
                gc.freeze()
                self.account.prices = pipeline.info.details.get("prices")
                batch = BatchFileRun(
                    # An endpoint that serves one model is asked for that: lines call it as the endpoint does.
                    SupervisedModel(self.name or pipeline.info.model or self.spec.engine, supervisor),
                    self.spec,
                    self.results,
                    self.errors,
                    self.account,
                    concurrency=self.concurrency or 2 * pipeline.info.concurrency,
                    strict=self.strict,
                    journal=journal,
                )
                interrupts.drain_with(batch.drain, lambda: batch.in_flight)
                self.progress.in_flight = lambda: batch.in_flight
                self.progress.replacing = lambda: supervisor.replacing
                with self.progress:
                    try:
                        await batch.run(read_ahead(read_lines(self.descriptor)))
                    finally:
                        self.n_in = batch.n_in
                        self.partial, self.passing = batch.stopped, batch.passing
                        self.facts["engine_restarts"] = supervisor.deaths
            finally:
                interrupts.gently = None
                await supervisor.stop()
