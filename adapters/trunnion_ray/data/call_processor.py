"""Build a processor whose rows are calls: of an HTTP endpoint, or of a Serve deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ray.data import ActorPoolStrategy, Dataset

from ._ray_private import end_actors_with_job
from .call_worker import CallBatchWorker, CallJob, LastStep
from .outside import Preprocess
from .processor import split

_SIDE_BY_SIDE = 8
"""Blocks of one replica in flight: a block ends with its slowest row, and the others must not wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProcessor:
    """Answer every row of a dataset by a call. Call it with a dataset; nothing runs before the result is consumed.

    Every input row becomes exactly one output row.

    Attributes:
        job: What the replicas do.
        batch_size: Rows per block.
        replicas: The smallest and the largest number of actors.
        placed: Arguments of ``map_batches`` that place an actor.
        before, after: Arguments of ``Dataset.map`` for preprocess and postprocess in tasks of their own.
    """

    job: CallJob
    batch_size: int
    replicas: tuple[int, int]
    placed: Mapping[str, Any] = field(default_factory=dict, repr=False)
    before: Mapping[str, Any] = field(default_factory=dict, repr=False)
    after: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return the dataset of answered rows."""
        job = self.job
        if self.before and job.preprocess is not None:
            outside = Preprocess(function=job.preprocess, on_error=job.on_error)
            dataset = dataset.map(outside.__call__, **self.before)
            job = replace(job, preprocess=None)
        postprocess = job.postprocess if self.after else None
        if postprocess is not None:
            job = replace(job, postprocess=None)
        low, high = self.replicas
        dataset = split(dataset, self.batch_size).map_batches(
            CallBatchWorker,
            fn_constructor_args=(job,),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(
                min_size=low,
                max_size=high,
                max_concurrent_calls_per_actor=_SIDE_BY_SIDE,
                max_tasks_in_flight_per_actor=_SIDE_BY_SIDE * 3 // 2,
                enable_true_multi_threading=True,
            ),
            udf_modifying_row_count=False,
            **self.placed,
        )
        if postprocess is not None:
            last = LastStep(function=postprocess, failed=job.failed, on_error=job.on_error)
            dataset = dataset.map(last.__call__, **self.after)
        end_actors_with_job(dataset)
        return dataset
