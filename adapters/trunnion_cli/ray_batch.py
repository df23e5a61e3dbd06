"""Run a batch on Ray Data, and write its rows here: in order, with the same account as a run in process."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trunnion.errors import ConfigError, TrunnionError
from trunnion.rows import OUTPUT_COLUMNS, RowColumns, error_columns

from .ray_session import for_workers, ray_session
from .row_input import parse_line

if TYPE_CHECKING:
    from .job import Job

_LINE: Final = "input_line"


async def run_on_ray(job: Job, *, replicas: int) -> None:
    """Run the job on Ray; rows stream through this process on their way to the output."""
    async with ray_session():
        with job.progress:
            await asyncio.to_thread(_run, job, replicas)


def _run(job: Job, replicas: int) -> None:
    try:
        from trunnion_ray.data import ProcessorConfig, build_processor
    except ImportError as error:
        raise ConfigError(f"--ray needs Ray Data ({error}): pip install 'trunnion[ray]'") from error
    import ray

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    options = job.options
    spec = for_workers(job.spec)
    config = ProcessorConfig(
        engine=spec.engine,
        model=spec.model,
        config=dict(spec.config),
        sampling=dict(options.sampling),
        columns=dataclasses.asdict(options.columns),
        concurrency=replicas,
        max_pending_requests=job.concurrency,
        base_models=tuple(options.base_models),
        on_error="raise" if job.raise_errors else "row",
    )
    path = str(Path(job.rows.name).expanduser().absolute())
    if job.rows.format == "parquet":
        dataset = build_processor(config)(ray.data.read_parquet(path))
        written = iter(dataset.iter_rows())
    else:
        lines = ray.data.read_text(path, drop_empty_lines=True).map(_Request(options.columns))
        written = _with_lines(build_processor(config)(lines).iter_rows())
    job.n_in = job.rows.count()
    for row in written:
        job.output.write(row)
        job.progress.count(row)


class _Request:
    """Take the request's columns out of a JSON line, as text: no type of one row then changes those of another."""

    def __init__(self, columns: RowColumns) -> None:
        self._columns = [name for name in dataclasses.asdict(columns).values() if name]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        line = row["text"]
        values = parse_line(line.encode(), 0).row
        made: dict[str, Any] = {name: self._text(values.get(name)) for name in self._columns}
        return {_LINE: line, **made}

    @staticmethod
    def _text(value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return json.dumps(value)


def _with_lines(rows: Iterator[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each answer the columns of its line back."""
    for number, row in enumerate(rows, 1):
        source = parse_line(row[_LINE].encode(), number)
        answer = {name: row[name] for name in OUTPUT_COLUMNS}
        yield {**source.row, **(answer if source.error is None else error_columns(source.error))}


def find_ours(error: BaseException) -> TrunnionError | None:
    """Return our error out of the chain of causes that Ray wraps it in."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TrunnionError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None
