"""Build a processor: a callable from dataset to dataset, as lazy as everything in Ray Data."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ray.data import ActorPoolStrategy, Dataset

from trunnion.errors import ConfigError
from trunnion.rows import RowColumns, RowOptions

from ._ray_private import end_actors_with_job
from .config import ProcessorConfig
from .dialect import Dialect, TrunnionDialect
from .failures import RowFunction
from .outside import Postprocess, Preprocess
from .placement import describe, needs_group, placement, resources_of
from .worker import BatchJob, BatchWorker

logger = logging.getLogger("trunnion.data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Answer every row of a dataset. Call it with a dataset; nothing runs before the result is consumed.

    Every input row becomes exactly one output row. Made by :func:`build_processor`.
    """

    config: ProcessorConfig
    job: BatchJob
    placed: Mapping[str, Any] = field(repr=False)
    before: Mapping[str, Any] = field(default_factory=dict, repr=False)
    after: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return the dataset of answered rows."""
        config, job = self.config, self.job
        logger.info("%s", self.explain())
        if self.before and job.preprocess is not None:
            outside = Preprocess(function=job.preprocess, on_error=job.on_error)
            dataset = dataset.map(outside.__call__, **self.before)
            job = replace(job, preprocess=None)
        postprocess = job.postprocess
        if self.after:
            job = replace(job, postprocess=None)
        if config.split_blocks:
            dataset = split(dataset, config.batch_size)
        # A block that is taken whole lets a limit pass to the rows before it. With GPUs, Ray Data wants a number.
        whole = config.split_blocks and not self.placed.get("num_gpus")
        low, high = config.replicas
        dataset = dataset.map_batches(
            BatchWorker,
            fn_constructor_args=(job,),
            batch_size=None if whole else config.batch_size,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(
                min_size=low,
                max_size=high,
                max_concurrent_calls_per_actor=config.calls,
                max_tasks_in_flight_per_actor=config.in_flight,
                enable_true_multi_threading=True,
            ),
            udf_modifying_row_count=False,
            **self.placed,
        )
        if self.after and postprocess is not None:
            last = Postprocess(function=postprocess, dialect=job.dialect, on_error=job.on_error)
            dataset = dataset.map(last.__call__, **self.after)
        end_actors_with_job(dataset)
        return dataset

    def explain(self) -> str:
        """Describe the plan in one line."""
        config, spec = self.config, self.job.spec.engine
        low, high = config.replicas
        count = str(low) if low == high else f"{low} to {high}"
        model = f" with {spec.model}" if spec.model else ""
        steps = [
            "preprocess" if self.job.preprocess and not self.before else "",
            "template, tokenize, engine, detokenize",
            "postprocess" if self.job.postprocess and not self.after else "",
        ]
        return (
            f"engine {spec.engine}{model}: {count} replica(s) of {describe(resources_of(config, self.job.spec))}, each "
            f"{config.calls} x {config.batch_size} rows at once; in one actor: "
            f"{', '.join(step for step in steps if step)}; a failed row "
            f"{'ends the job' if config.on_error == 'raise' else 'gets an error column'}"
        )


def split(dataset: Dataset, rows: int) -> Dataset:
    """Cut a dataset into blocks of so many rows: a block is answered whole before any row of it comes out."""
    if "strict" in inspect.signature(dataset.repartition).parameters:
        return dataset.repartition(target_num_rows_per_block=rows, strict=True)
    return dataset.repartition(target_num_rows_per_block=rows)


def make_processor(
    config: ProcessorConfig,
    preprocess: RowFunction | None = None,
    postprocess: RowFunction | None = None,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    dialect: Dialect | None = None,
) -> Processor:
    """Check the configuration and return the processor; ``before`` and ``after`` are arguments of ``Dataset.map``."""
    spec = config.pipeline_spec()
    unknown = sorted(set(config.columns) - set(RowColumns.__dataclass_fields__))
    if unknown:
        names = ", ".join(RowColumns.__dataclass_fields__)
        raise ConfigError(f"there is no input column {unknown[0]!r} to be renamed; there are: {names}", param="columns")
    columns = RowColumns(**config.columns)
    RowOptions(columns=columns, **config.row_options())  # wrong sampling defaults are refused here, not by a replica
    for name, function in (("preprocess", preprocess), ("postprocess", postprocess)):
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be a function of a row, not {function!r}", param=name)
    resources = resources_of(config, spec)
    job = BatchJob(
        spec=spec,
        columns=columns,
        options=config.row_options(),
        preprocess=preprocess,
        postprocess=postprocess,
        dialect=dialect or TrunnionDialect(),
        on_error=config.on_error,
        max_pending=config.max_pending_requests,
        adapter_root=config.adapter_root,
        owns_group=needs_group(resources),
    )
    placed = dict(placement(resources, config.replicas[1]))
    if config.runtime_env is not None:
        placed["runtime_env"] = config.runtime_env
    return Processor(config=config, job=job, placed=placed, before=before or {}, after=after or {})
