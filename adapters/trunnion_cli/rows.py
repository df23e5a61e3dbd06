"""Run a file of rows through an engine."""

from __future__ import annotations

from typing import Annotated

import typer

from .assignments import parse_assignments
from .batch_options import (
    Cache,
    DeadLetters,
    Deduplicate,
    JournalOption,
    MaxErrorRate,
    MaxRestarts,
    OnError,
    Retries,
    RowTimeout,
    Share,
    ShareAnswers,
    StallTimeout,
    Summary,
    recovery_settings,
    summary_path,
)
from .console import claim_stdout
from .interrupts import run_async
from .options import (
    Adapters,
    Debug,
    Engine,
    Hooks,
    Media,
    Sampling,
    Settings,
    Verbose,
    build_spec,
    hook_settings,
    media_policy,
)


def run(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Rows: a .jsonl or .parquet file, or - for stdin.")],
    target: Annotated[str, typer.Argument(metavar="OUTPUT", help="A .jsonl or .parquet file, or - for stdout.")],
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Path or name of the model.")] = None,
    *,
    engine: Engine = None,
    settings: Settings = None,
    adapter: Adapters = None,
    hook: Hooks = None,
    media: Media = None,
    sampling: Sampling = None,
    prompt_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of text that is sent as it stands; 'prompt'.")
    ] = None,
    messages_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of conversations; 'messages'.")
    ] = None,
    model_column: Annotated[str, typer.Option(metavar="NAME", help="Column that names an adapter.")] = "model",
    on_error: Annotated[
        OnError, typer.Option(help="row: a failed row is written with its error. raise: the first one ends the run.")
    ] = OnError.ROW,
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows in flight; twice what the engine finds useful.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Run on Ray: the local machine, or the cluster of RAY_ADDRESS.")
    ] = False,
    journal: JournalOption = None,
    cache: Cache = None,
    deduplicate: Deduplicate = False,
    share: Share = ShareAnswers.DETERMINISTIC,
    dead_letters: DeadLetters = None,
    max_error_rate: MaxErrorRate = None,
    retries: Retries = None,
    row_timeout: RowTimeout = None,
    stall_timeout: StallTimeout = None,
    max_restarts: MaxRestarts = None,
    summary: Summary = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT where it exists.")] = False,
    replicas: Annotated[int, typer.Option(min=1, metavar="N", help="With --ray: engines side by side.")] = 1,
    verbose: Verbose = False,  # noqa: ARG001 - kept by its callback
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Answer every row of INPUT and write it, with the answer or its error, to OUTPUT, in the same order.

    A row holds `messages`, `prompt` or `prompt_token_ids`, and may hold `sampling_params`, `model` (an adapter),
    `tools`, `tool_choice` and `response_format`. Every input column is kept. Ends with 1 if every row failed, and with
    130 if Ctrl-C stopped it: the rows in flight are finished first.
    """
    from trunnion.rows import RowColumns, RowOptions
    from trunnion_batch.account import Account
    from trunnion_batch.row_input import RowInput, file_format
    from trunnion_batch.row_output import check_output, open_output

    from .job import Job
    from .progress import Progress

    if replicas != 1 and not ray:
        raise typer.BadParameter("--replicas needs --ray")
    columns = RowColumns(model=model_column)
    if prompt_column or messages_column:  # naming one says where the prompt is, so the others are not looked at
        columns = RowColumns(
            model=model_column, prompt=prompt_column or "", messages=messages_column or "", prompt_token_ids=""
        )
    names = frozenset({model}) if model else frozenset()
    options = RowOptions(columns=columns, sampling=parse_assignments("--sampling", sampling or ()), base_models=names)
    if ray and source == "-":
        raise typer.BadParameter("--ray reads a file; stdin is read in process alone")
    file_format(target, "OUTPUT")
    rows = RowInput(source)
    check_output(target, source=source, overwrite=overwrite)
    if dead_letters is not None:
        check_output(dead_letters, source=source, overwrite=overwrite, what="--dead-letters")
    spec = build_spec(engine, model, settings, adapter, batch=True)
    hooks, policy = hook_settings(hook), media_policy(media)
    output = open_output(target, claim_stdout() if target == "-" else None, rows.schema)
    account = Account(max_error_rate=max_error_rate)
    job = Job(
        spec=spec,
        hooks=hooks,
        media=policy,
        rows=rows,
        output=output,
        dead_letters=None if dead_letters is None else open_output(dead_letters, None, None),
        options=options,
        account=account,
        progress=Progress(rows.total, account),
        concurrency=concurrency,
        raise_errors=on_error is OnError.RAISE,
        recovery=recovery_settings(retries, row_timeout, stall_timeout, max_restarts),
        journal=journal,
        cache=cache,
        deduplicate=deduplicate,
        share=share.value,
        summary=summary_path(summary, target),
    )
    try:
        if ray:
            from .ray_batch import run_on_ray

            run_async(lambda interrupts: job.guard(run_on_ray(job, replicas=replicas), interrupts))
        else:
            run_async(lambda interrupts: job.guard(job.run_here(interrupts), interrupts))
    except BrokenPipeError as error:  # whoever read our stdout has enough
        raise typer.Exit(1) from error
    if job.partial:
        raise typer.Exit(130)
    if job.n_in and not account.ok:
        raise typer.Exit(1)  # every row failed
