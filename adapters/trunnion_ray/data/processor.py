"""Build a processor: a callable from dataset to dataset, as lazy as everything in Ray Data."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ray
from ray.data import ActorPoolStrategy, Dataset
from trunnion.errors import ConfigError
from trunnion.rows import RowColumns, RowOptions

from .config import ProcessorConfig
from .placement import describe, placement, resources_of
from .worker import BatchJob, BatchWorker, RowFunction

logger = logging.getLogger("trunnion.data")

_CONCURRENT: Final = ("size", "min_size", "max_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Answer every row of a dataset. Call it with a dataset; nothing runs before the result is consumed.

    Every input row becomes exactly one output row with all its columns and those of
    :data:`trunnion.rows.OUTPUT_COLUMNS`; a row that failed has an ``error``.
    """

    config: ProcessorConfig
    job: BatchJob
    placed: Mapping[str, Any] = field(repr=False)

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return the dataset of answered rows."""
        config = self.config
        logger.info("%s", self.explain())
        if config.split_blocks:
            dataset = _split(dataset, config.batch_size)
        return dataset.map_batches(
            BatchWorker,
            fn_constructor_args=(self.job,),
            batch_size=config.batch_size,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=self._compute(),
            udf_modifying_row_count=False,
            **self.placed,
        )

    def _compute(self) -> ActorPoolStrategy:
        config = self.config
        low, high = config.replicas
        calls = config.max_concurrent_batches
        return ActorPoolStrategy(
            min_size=low,
            max_size=high,
            max_concurrent_calls_per_actor=calls,
            # Some blocks wait in the actor, so that a call that ends is followed by the next at once.
            max_tasks_in_flight_per_actor=config.max_tasks_in_flight_per_actor or calls + max(2, math.ceil(calls / 2)),
            enable_true_multi_threading=True,
        )

    def explain(self) -> str:
        """Describe the plan in one line."""
        config, spec = self.config, self.job.spec.engine
        low, high = config.replicas
        count = str(low) if low == high else f"{low} to {high}"
        model = f" with {spec.model}" if spec.model else ""
        steps = [
            "preprocess" if self.job.preprocess else "",
            "template, tokenize, engine, detokenize",
            "postprocess" if self.job.postprocess else "",
        ]
        return (
            f"engine {spec.engine}{model}: {count} replica(s) of {describe(resources_of(config, self.job.spec))}, each "
            f"{config.max_concurrent_batches} x {config.batch_size} rows at once; in one actor: "
            f"{', '.join(step for step in steps if step)}; a failed row "
            f"{'ends the job' if config.on_error == 'raise' else 'gets an error column'}"
        )


def _split(dataset: Dataset, rows: int) -> Dataset:
    """Cut a dataset into blocks of so many rows: a block is answered whole before any row of it comes out."""
    if "strict" in inspect.signature(dataset.repartition).parameters:
        return dataset.repartition(target_num_rows_per_block=rows, strict=True)
    return dataset.repartition(target_num_rows_per_block=rows)


def make_processor(
    config: ProcessorConfig,
    preprocess: RowFunction | None = None,
    postprocess: RowFunction | None = None,
) -> Processor:
    """Check the configuration and return the processor; see :func:`trunnion_ray.data.build_processor`."""
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
    job = BatchJob(
        spec=spec,
        columns=columns,
        options=config.row_options(),
        preprocess=preprocess,
        postprocess=postprocess,
        on_error=config.on_error,
        max_pending=config.max_pending_requests,
        adapter_root=config.adapter_root,
    )
    placed = dict(placement(resources_of(config, spec)))
    if config.runtime_env is not None:
        placed["runtime_env"] = config.runtime_env
    return Processor(config=config, job=job, placed=placed)
