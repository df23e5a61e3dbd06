"""Run a batch on Ray Data, and write its rows here: in order, with the same account as a run in process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trunnion import get_registry
from trunnion.errors import ConfigError, InvalidArgument
from trunnion.row_tasks import TASK_COLUMNS, dead_letter, failed_columns
from trunnion.rows import RowColumns
from trunnion_batch.account import Account
from trunnion_batch.row_input import parse_line
from trunnion_batch.templates import RowTemplate

from .ray_session import for_workers, ray_session
from .state import STATE

if TYPE_CHECKING:
    from trunnion import EngineSpec
    from trunnion.pooling import Task
    from trunnion.rows import RowOptions
    from trunnion_batch.job_file import JobFile
    from trunnion_ray.data import ProcessorConfig
    from trunnion_ray.data.driven import Begun

    from .job import Job

_LINE: Final = "text"
_LOOK_SECONDS: Final = 1.0
_BLOCK: Final = 128
"""Rows of a block, where the prefix window is larger."""


async def run_on_ray(job: Job, given: JobFile) -> None:
    """Run the job on Ray, with the replicas it was given; rows stream through this process to the output."""
    cpus = cpus_taken(given, job.spec, job.further)
    async with ray_session(cpus):
        job.progress.waits = lambda: _waits(job, cpus)
        job.progress.starting = lambda: "the job on Ray"
        with job.progress:
            await asyncio.to_thread(_run, job, given)


def cpus_taken(given: JobFile, spec: EngineSpec, further: Mapping[str, tuple[EngineSpec, RowOptions]]) -> float:
    """Return the CPUs that the replicas of all models take side by side, and one for reading."""
    replicas = [(spec, given.replicas), *((one, given.models[name].replicas) for name, (one, _) in further.items())]
    resources = get_registry().resources
    return 1 + sum(count * bundle.cpu for one, count in replicas for bundle in resources(one).bundles)


def room_line(cpus: float) -> str:
    """Return a line about the CPUs a job takes, and whether Ray will have them."""
    takes = f"Ray: {cpus:g} CPUs are taken, one of them for reading"
    if os.environ.get("RAY_ADDRESS"):
        return f"{takes}, from the cluster of RAY_ADDRESS; it must have them, or grow"
    there = os.cpu_count() or 1
    told = (
        f"{there} of this machine"
        if cpus <= there
        else f"{math.ceil(cpus)} logical ones on the {there} of this machine"
    )
    return f"{takes}; it is started here with {told}"


def _waits(job: Job, cpus: float) -> str:
    """Say what a job on Ray waits for, with the numbers that may be why."""
    import ray

    replicas = job.progress.replicas
    rows = f"{job.n_in - job.account.rows} rows to come" if job.n_in else "rows to come"
    try:
        there, free = ray.cluster_resources().get("CPU", 0), ray.available_resources().get("CPU", 0)
    except Exception:  # noqa: BLE001 - Ray is being stopped
        return ""
    return (
        f"{replicas} replica(s) on Ray, with {rows}; the job takes {cpus:g} CPUs, and of the cluster's {there:g} "
        f"{free:g} are free"
    )


def processor_config(
    given: JobFile, spec: EngineSpec, further: Mapping[str, tuple[EngineSpec, RowOptions]], options: RowOptions
) -> ProcessorConfig:
    """Return the processor's settings that do what the job says. Raises :class:`ConfigError` without Ray Data."""
    try:
        from trunnion_ray.data import ModelConfig, ProcessorConfig
    except ImportError as error:
        raise ConfigError(f"--ray needs Ray Data ({error}): pip install 'trunnion[ray]'") from error
    models: dict[str, ModelConfig] = {}
    for name, (engine, rows) in further.items():
        one = for_workers(engine)
        models[name] = ModelConfig(
            engine=one.engine,
            model=one.model,
            config=dict(one.config),
            sampling=dict(rows.sampling),
            concurrency=given.models[name].replicas,
            max_pending_requests=given.concurrency,
        )
    spec = for_workers(spec)
    held: dict[str, Any] = {}
    if given.prefix_window is not None:  # a replica orders what it holds
        size = min(given.prefix_window, _BLOCK)
        held = {"prefix_order": True, "batch_size": size, "max_concurrent_batches": -(-given.prefix_window // size)}
    return ProcessorConfig(
        task=given.task,
        dimensions=given.dimensions,
        engine=spec.engine,
        model=spec.model,
        config=dict(spec.config),
        models=models,
        hooks=given.hooks,
        media=given.media,
        sampling=dict(options.sampling),
        columns=dataclasses.asdict(options.columns),
        concurrency=given.replicas,
        max_pending_requests=given.concurrency,
        base_models=tuple(options.base_models),
        on_error=given.on_error,
        skip_failed=False,  # rows of a file that bring an error are dead letters, to be asked again
        recovery=given.recovery,
        journal=given.journal,
        cache=given.cache,
        share=given.share,
        max_error_rate=given.max_error_rate,
        **held,
    )


def _run(job: Job, given: JobFile) -> None:
    import ray.data

    from trunnion_ray.data import build_processor, find_error

    # What Ray Data logs of a failure as an error is raised as well, and told in a line.
    logging.getLogger("ray.data").setLevel(logging.INFO if STATE.verbose else logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    options = job.options
    config = processor_config(given, job.spec, job.further, options)
    path = str(Path(job.rows.name).expanduser().absolute())
    parquet = job.rows.format == "parquet"
    if parquet:
        begun = build_processor(config, job.preprocess, job.postprocess).begin(ray.data.read_parquet(path))
    else:
        lines = ray.data.read_text(path, drop_empty_lines=True)
        begun = build_processor(config, preprocess=_Request(options.columns, job.preprocess)).begin(lines)
    _watch(job, given, begun)
    written = iter(begun.dataset.iter_rows())
    job.n_in = job.rows.count()
    try:
        numbered = zip(itertools.chain(job.rows.numbers(), itertools.repeat(0)), written, strict=False)
        for number, row in numbered if parquet else _with_lines(numbered, job.postprocess, given.task):
            job.output.write(row)
            if job.dead_letters is not None and row["error"] is not None:
                job.dead_letters.write(dead_letter(row, given.task))
            job.account.add(row, number=number)
    except Exception as error:
        ours = find_error(error)
        if ours is None:
            raise
        raise ours from error
    finally:
        begun.close()  # a store has what was answered, however the job ended
    counted = begun.account()
    job.account.take(counted)
    job.facts |= {"engine_restarts": counted["engine_restarts"], "replicas": job.progress.replicas}


def _watch(job: Job, given: JobFile, begun: Begun) -> None:
    """Let the job's progress see what the replicas have answered, which is ahead of what is written."""
    progress = job.progress
    in_flight, looked, warned = 0, -_LOOK_SECONDS, 0

    def look() -> None:
        nonlocal in_flight, looked, warned
        if time.monotonic() - looked < _LOOK_SECONDS:
            return
        with contextlib.suppress(Exception):  # Ray is busy, or is being stopped: the next look may tell
            seen = begun.seen()
            progress.live, in_flight = seen.account, seen.in_flight
            for number, text in seen.warned:
                if number > warned:
                    warned = number
                    logging.getLogger("trunnion.batch").warning("%s", text)
        looked = time.monotonic()

    replicas = sum((given.replicas, *(one.replicas for one in given.models.values())))
    starts = f"{replicas} replica{'s' * (replicas != 1)} of {job.spec.engine} on Ray"
    progress.replicas = replicas
    progress.live = Account()  # not the rows that are written: those do not tell which answers were known
    progress.in_flight = lambda: in_flight
    progress.starting = lambda: "" if in_flight else starts
    progress.look = look


class _Request:
    """Take the request's columns out of a JSON line, as text: no type of one row then changes those of another."""

    def __init__(self, columns: RowColumns, template: RowTemplate | None) -> None:
        self._template = template
        self._columns = [name for name in dataclasses.asdict(columns).values() if name]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        values = parse_line(row[_LINE].encode(), 0).row
        if self._template is not None:
            values = {**values, **self._template(values)}
        return {name: self._text(values.get(name)) for name in self._columns}

    @staticmethod
    def _text(value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return json.dumps(value)


def _with_lines(
    rows: Iterable[tuple[int, Mapping[str, Any]]], postprocess: RowTemplate | None, task: Task
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give each answer, by the number of its line, the columns of the line back, or make it what a template says."""
    for number, row in rows:
        source = parse_line(row[_LINE].encode(), number)
        answer = {name: row[name] for name in TASK_COLUMNS[task]}
        whole = {**source.row, **(answer if source.error is None else failed_columns(source.error, task))}
        if postprocess is None or whole["error"] is not None:
            yield number, whole
            continue
        try:
            made = {**postprocess(whole), "error": None}
        except InvalidArgument as error:
            made = {**source.row, **failed_columns(error, task)}
        yield number, made
