"""Build a processor: a callable from dataset to dataset, as lazy as everything in Ray Data."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ray.data import ActorPoolStrategy, Dataset

from trunnion.errors import ConfigError, PluginError
from trunnion.rows import RowColumns, RowOptions
from trunnion_batch.account import Account
from trunnion_batch.journal.journal import absolute
from trunnion_batch.routes import routes

from ._ray_private import constructed_before, end_actors_with_job, known_rows
from .config import ProcessorConfig
from .desk_client import make_desk
from .dialect import Dialect, TrunnionDialect
from .driven import Begun, run_job
from .failures import RowFunction
from .outside import Postprocess, Preprocess
from .placement import check_room, describe, needs_group, placement, resources_of
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
    further: tuple[Processor, ...] = field(default=(), repr=False)
    before: Mapping[str, Any] = field(default_factory=dict, repr=False)
    after: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _begun: list[Begun] = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return the dataset of answered rows."""
        begun = self.begin(dataset)
        self._begun[:] = [begun]
        return begun.dataset

    def run(
        self,
        dataset: Dataset,
        output: str,
        *,
        dead_letters: str | None = None,
        summary: str | None = None,
        overwrite: bool = False,
        watched: Callable[[Account], None] | None = None,
    ) -> dict[str, Any]:
        """Answer every row of a dataset, write the rows, and return the account.

        Args:
            dataset: The rows.
            output: A ``.jsonl`` or ``.parquet`` file here, which appears whole or not at all; rows come through the
                driver. Or a folder, ending in ``/``, or a URI: the nodes write Parquet files into it side by side.
            dead_letters: A file here for the rows that failed, which can be run again.
            summary: Where the account is written to, as JSON.
            overwrite: Whether files that exist are replaced.
            watched: Told the account after every row.

        Returns:
            ``rows_in``, ``ok``, ``failed``, ``replayed``, ``errors`` by code with an example, tokens, seconds,
            ``engine_restarts`` and more. ``rows_in == ok + failed`` was asserted.

        Raises:
            TrunnionError: What ended the job: an engine that stays dead, too many errors, a row where
                ``on_error="raise"``. The journal, if there is one, has what was answered.
        """
        return run_job(
            self,
            dataset,
            output,
            dead_letters=dead_letters,
            summary=summary,
            overwrite=overwrite,
            watched=watched,
        )

    def summary(self) -> dict[str, Any]:
        """Return the account of the dataset that this processor was last called with, as far as it was consumed.

        ``partial`` tells whether rows are missing; None where it is not known how many there are.

        Raises:
            ConfigError: It was not called yet.
        """
        if not self._begun:
            raise ConfigError("the processor has no dataset yet; call it with one, and consume what it returns")
        return self._begun[0].account()

    def begin(self, dataset: Dataset) -> Begun:
        """Return the dataset of answered rows, with what counts them."""
        config = self.config
        models = (self, *self.further)
        jobs = [job for job in constructed_before(dataset) if isinstance(job, BatchJob)]
        check_room([job.takes for job in (*jobs, *(one.job for one in models)) if job.takes is not None])
        journal, cache = (None if uri is None else absolute(uri) for uri in (config.journal, config.cache))
        desk = make_desk(
            journal=journal,
            cache=cache,
            max_error_rate=config.max_error_rate,
            max_restarts=config.recovery.max_engine_restarts,
        )
        return Begun(self._lazy(dataset, desk), desk, known_rows(dataset))

    def _lazy(self, dataset: Dataset, desk: Any) -> Dataset:
        config, job = self.config, replace(self.job, desk=desk)
        logger.info("%s", self.explain())
        if self.before and job.preprocess is not None:
            skip = job.dialect if job.skip_failed else None
            outside = Preprocess(function=job.preprocess, on_error=job.on_error, skip=skip)
            dataset = dataset.map(outside.__call__, **self.before)
            job = replace(job, preprocess=None)
        last = self.further[-1].job if self.further else job
        if config.split_blocks:
            dataset = split(dataset, config.batch_size)
        # A block that is taken whole lets a limit pass to the rows before it. With GPUs, Ray Data wants a number.
        whole = config.split_blocks and not self.placed.get("num_gpus")
        dataset = _mapped(dataset, self, job, whole=whole)
        for one in self.further:
            dataset = _mapped(dataset, one, replace(one.job, desk=desk), whole=not one.placed.get("num_gpus"))
        if self.after and last.postprocess is not None:
            end = Postprocess(function=last.postprocess, dialect=job.dialect, on_error=job.on_error)
            dataset = dataset.map(end.__call__, **self.after)
        end_actors_with_job(dataset)
        return dataset

    def explain(self) -> str:
        """Describe the plan: a line, and one more for each further model."""
        lines = [_plan(self)]
        lines += [f"{name}: {_plan(one)}" for name, one in zip(self.job.routes.names, self.further, strict=True)]
        return "\n".join(lines)


def _mapped(dataset: Dataset, one: Processor, job: BatchJob, *, whole: bool) -> Dataset:
    """Return the dataset that one model's replicas have seen; ``whole``: its blocks are taken as they are."""
    config = one.config
    low, high = config.replicas
    if one.after:
        job = replace(job, postprocess=None)
    return dataset.map_batches(
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
        **one.placed,
    )


def _plan(one: Processor) -> str:
    config, spec = one.config, one.job.spec.engine
    low, high = config.replicas
    count = str(low) if low == high else f"{low} to {high}"
    model = f" with {spec.model}" if spec.model else ""
    steps = [
        "preprocess" if one.job.preprocess and not one.before else "",
        "template, tokenize, engine, detokenize" if config.task == "generate" else f"engine ({config.task})",
        "postprocess" if one.job.postprocess and not one.after else "",
    ]
    return (
        f"engine {spec.engine}{model}: {count} replica(s) of {describe(resources_of(config, one.job.spec))}, each "
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
    unknown = sorted(set(config.columns) - set(RowColumns.__dataclass_fields__))
    if unknown:
        names = ", ".join(RowColumns.__dataclass_fields__)
        raise ConfigError(f"there is no input column {unknown[0]!r} to be renamed; there are: {names}", param="columns")
    columns = RowColumns(**config.columns)
    for name, function in (("preprocess", preprocess), ("postprocess", postprocess)):
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be a function of a row, not {function!r}", param=name)
    ways = routes(tuple(config.models), columns.model)
    common: dict[str, Any] = {"columns": columns, "dialect": dialect or TrunnionDialect(config.task), "routes": ways}
    configs = [config, *config.further()]
    made: list[Processor] = []
    for place, one in enumerate(configs):
        try:
            made.append(_one(one, place=place, before=before or {}, after=after or {}, common=common))
        except (ConfigError, PluginError) as error:
            if not place:
                raise
            name = ways.names[place - 1]
            raise ConfigError(f"models.{name}: {error}", param=f"models.{name}") from error
    first = replace(made[0], job=replace(made[0].job, preprocess=preprocess))
    if not ways.names:
        return replace(first, job=replace(first.job, postprocess=postprocess))
    end = replace(made[-1], job=replace(made[-1].job, postprocess=postprocess))
    return replace(first, further=(*made[1:-1], end))


def _one(
    config: ProcessorConfig,
    *,
    place: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    common: Mapping[str, Any],
) -> Processor:
    """Return what answers the rows of one model of a job."""
    spec = config.pipeline_spec()
    options = config.row_options()
    RowOptions(columns=common["columns"], **options)  # wrong sampling is refused here, not by a replica
    resources = resources_of(config, spec)
    job = BatchJob(
        spec=spec,
        options=options,
        on_error=config.on_error,
        skip_failed=config.skip_failed,
        max_pending=config.max_pending_requests,
        prefix_order=config.prefix_order,
        adapter_root=config.adapter_root,
        owns_group=needs_group(resources),
        takes=(resources, config.replicas[0]),
        recovery=config.recovery,
        keeps=bool(config.journal or config.cache),
        share=config.share,
        place=place,
        **common,
    )
    placed = dict(placement(resources, config.replicas[1]))
    if config.runtime_env is not None:
        placed["runtime_env"] = config.runtime_env
    return Processor(config=config, job=job, placed=placed, before=before, after=after)
