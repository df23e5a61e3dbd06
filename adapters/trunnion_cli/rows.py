"""Run a file of rows through an engine."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .assignments import parse_assignments
from .batch_options import (
    Cache,
    DeadLetters,
    Deduplicate,
    JournalOption,
    MaxErrorRate,
    MaxRestarts,
    MaxUnreachable,
    OnError,
    OutageTimeout,
    Retries,
    RowTimeout,
    Share,
    ShareAnswers,
    StallTimeout,
    Summary,
    TaskName,
    recovery_settings,
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
    adapter_paths,
    check_hook_settings,
    hook_settings,
    make_spec,
    media_policy,
)

if TYPE_CHECKING:
    from trunnion.rows import RowColumns
    from trunnion_batch.job_file import JobFile


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="Rows: a .jsonl or .parquet file, or - for stdin. Or a .yaml file that says it all."
        ),
    ],
    target: Annotated[
        str | None, typer.Argument(metavar="OUTPUT", help="A .jsonl or .parquet file, or - for stdout.")
    ] = None,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Path or name of the model.")] = None,
    *,
    task: Annotated[
        TaskName, typer.Option(help="generate text; embed or classify prompts; or score how well texts answer a query.")
    ] = TaskName.GENERATE,
    dimensions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --task embed: length of the vectors.")
    ] = None,
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
    prefix_window: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Hold N rows, and give those that share the beginning of their prompts to the engine close together.",
        ),
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
    outage_timeout: OutageTimeout = None,
    row_timeout: RowTimeout = None,
    stall_timeout: StallTimeout = None,
    max_restarts: MaxRestarts = None,
    max_unreachable: MaxUnreachable = None,
    summary: Summary = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files that exist: OUTPUT, dead letters, and what is no account."),
    ] = False,
    replicas: Annotated[int, typer.Option(min=1, metavar="N", help="With --ray: engines side by side.")] = 1,
    explain: Annotated[
        bool, typer.Option("--explain", help="Check everything, print the plan, and run nothing.")
    ] = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Answer every row of INPUT and write it, with the answer or its error, to OUTPUT, in the same order.

    A row holds `messages`, `prompt` or `prompt_token_ids`, and may hold `sampling_params`, `model` (an adapter),
    `tools`, `tool_choice` and `response_format`; with --task score it holds `query` and `texts`. Every input column is
    kept. Ends with 1 if every row failed, and with
    130 if Ctrl-C stopped it: the rows in flight are finished first.
    """
    from trunnion_batch.job_file import JobFile, read_job

    if source.lower().endswith((".yaml", ".yml")):
        given = sorted(_FLAGS[name] for name, value in locals().items() if name in _FLAGS and value != _DEFAULTS[name])
        if target is not None or given:
            raise typer.BadParameter(f"{source} says it all; set {given[0] if given else 'output'} there")
        _run(read_job(source), overwrite=overwrite, explain=explain)
        return
    if target is None:
        raise typer.BadParameter("name the OUTPUT: a .jsonl or .parquet file, or - for stdout")
    columns = {"model": model_column}
    if prompt_column or messages_column:  # naming one says where the prompt is, so the others are not looked at
        columns |= {"prompt": prompt_column or "", "messages": messages_column or "", "prompt_token_ids": ""}
    job = JobFile(
        input=source,
        output=target,
        task=task.value,
        dimensions=dimensions,
        engine=engine,
        model=model,
        config=parse_assignments("--set", settings or ()),
        adapters=adapter_paths(adapter or ()),
        hooks=hook_settings(hook),
        media=media_policy(media),
        sampling=parse_assignments("--sampling", sampling or ()),
        columns=columns,
        on_error=on_error.value,
        concurrency=concurrency,
        prefix_window=prefix_window,
        ray=ray,
        replicas=replicas,
        journal=journal,
        cache=cache,
        deduplicate=deduplicate,
        share=share.value,
        dead_letters=dead_letters,
        max_error_rate=max_error_rate,
        summary=summary,
        recovery=recovery_settings(
            row_retries=retries,
            outage_timeout=outage_timeout,
            row_timeout=row_timeout,
            stall_timeout=stall_timeout,
            max_engine_restarts=max_restarts,
            max_unreachable_rows=max_unreachable,
        ),
    )
    _run(job, overwrite=overwrite, explain=explain)


_FLAGS = {
    "task": "task", "dimensions": "dimensions", "model": "model", "engine": "engine", "settings": "config",
    "adapter": "adapters", "hook": "hooks", "media": "media", "sampling": "sampling",
    "prompt_column": "columns", "messages_column": "columns", "model_column": "columns",
    "on_error": "on_error", "concurrency": "concurrency", "prefix_window": "prefix_window", "ray": "ray",
    "journal": "journal", "cache": "cache",
    "deduplicate": "deduplicate", "share": "share", "dead_letters": "dead_letters", "max_error_rate": "max_error_rate",
    "retries": "recovery.row_retries", "outage_timeout": "recovery.outage_timeout",
    "row_timeout": "recovery.row_timeout", "replicas": "replicas",
    "stall_timeout": "recovery.stall_timeout", "max_restarts": "recovery.max_engine_restarts",
    "max_unreachable": "recovery.max_unreachable_rows", "summary": "summary",
}  # fmt: skip
"""What a job file calls the parameters of :func:`run`."""
_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}


def _run(given: JobFile, *, overwrite: bool, explain: bool) -> None:
    from trunnion.rows import RowColumns, RowOptions
    from trunnion_batch.account import Account
    from trunnion_batch.routes import routes
    from trunnion_batch.row_input import RowInput, file_format
    from trunnion_batch.row_output import open_output
    from trunnion_batch.templates import RowTemplate

    from .job import Job
    from .job_files import check_files
    from .progress import Progress

    if given.replicas != 1 and not given.ray:
        raise typer.BadParameter("--replicas needs --ray")
    names = frozenset({given.model}) if given.model else frozenset()
    asked: dict[str, Any] = {"task": given.task, "dimensions": given.dimensions}
    options = RowOptions(
        columns=_columns(RowColumns, given.columns), sampling=given.sampling, base_models=names, **asked
    )
    if given.ray and given.input == "-":
        raise typer.BadParameter("--ray reads a file; stdin is read in process alone")
    if given.ray and given.deduplicate:
        raise typer.BadParameter("--deduplicate works in process alone; with --ray name a --cache")
    preprocess = RowTemplate(given.preprocess) if given.preprocess else None
    postprocess = RowTemplate(given.postprocess, where="postprocess") if given.postprocess else None
    file_format(given.output, "OUTPUT")
    rows = RowInput(given.input)
    summary = check_files(given, overwrite=overwrite)
    spec = make_spec(given.engine, given.model, given.config, given.adapters, batch=True, task=given.task)
    further = {
        name: (
            make_spec(one.engine, one.model, one.config, one.adapters, batch=True, task=given.task),
            RowOptions(
                columns=options.columns,
                sampling=one.sampling,
                base_models=frozenset({one.model}) if one.model else frozenset(),
                **asked,
            ),
        )
        for name, one in given.models.items()
    }
    routes(tuple(further), options.columns.model)
    hooks = check_hook_settings(given.hooks)
    if explain:
        from .job_plan import job_plan

        typer.echo("\n".join(job_plan(given, spec, further, rows, options)))
        return
    schema = rows.schema if postprocess is None else None  # the columns are then others
    stdout = claim_stdout() if given.output == "-" else None
    output = open_output(given.output, stdout, schema, given.task, overwrite=overwrite)
    dead = given.dead_letters
    account = Account(max_error_rate=given.max_error_rate)
    job = Job(
        spec=spec,
        further=further,
        hooks=hooks,
        media=given.media,
        rows=rows,
        output=output,
        dead_letters=None if dead is None else open_output(dead, None, None, given.task, overwrite=overwrite),
        options=options,
        preprocess=preprocess,
        postprocess=postprocess,
        account=account,
        progress=Progress(rows.total, account, given.recovery),
        concurrency=given.concurrency,
        prefix_window=given.prefix_window,
        raise_errors=given.on_error == "raise",
        recovery=given.recovery,
        journal=given.journal,
        cache=given.cache,
        deduplicate=given.deduplicate,
        share=given.share,
        summary=summary,
        on_ray=given.ray,
    )
    try:
        if given.ray:
            from .ray_batch import run_on_ray

            run_async(lambda interrupts: job.guard(run_on_ray(job, given), interrupts))
        else:
            run_async(lambda interrupts: job.guard(job.run_here(interrupts), interrupts))
    except BrokenPipeError as error:  # whoever read our stdout has enough
        raise typer.Exit(1) from error
    if job.partial:
        raise typer.Exit(130)
    if (job.n_in and not account.ok) or job.displaced:
        raise typer.Exit(1)  # every row failed, or rows are not where they were to be


def _columns(kind: type[RowColumns], named: dict[str, str]) -> RowColumns:
    from trunnion.errors import ConfigError

    unknown = sorted(set(named) - set(kind.__dataclass_fields__))
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)
        raise ConfigError(f"there is no input column {unknown[0]!r}; there are: {known}", param=f"columns.{unknown[0]}")
    return kind(**named)
