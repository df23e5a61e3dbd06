"""Be the actor of a batch job: it holds the engine, and everything between a row and its answer happens in it."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pyarrow as pa
from ray.data import DataContext

from trunnion import PipelineSpec, Resources
from trunnion.errors import EngineDead, InternalError, TrunnionError
from trunnion.row_tasks import RowRequest
from trunnion.rows import RowColumns, RowOptions
from trunnion_batch.answering import Share
from trunnion_batch.recovery import Recovery
from trunnion_batch.routes import Routes

from .counting import count_block
from .desk_client import DeskClient
from .dialect import Dialect, TrunnionDialect
from .failures import RowFunction, row_failure
from .outside import FAILED_BEFORE, failure_before
from .placement import remove_own_group
from .runner import Answer, BlockRunner, Outcome
from .tables import Columns
from .underway import Underway

logger = logging.getLogger("trunnion.data")
_PLACE: Final = "__trunnion_place"
"""The column that tells, between the actors of several models, whose a row is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """Hold what crosses to the replicas; the functions are those that run in the engine's actor.

    ``owns_group``: the actor's placement group is its own and goes when it goes. ``desk``: the handle of the job's
    :class:`~.desk.Desk`; ``keeps``: whether that has a journal or a cache. With several models, ``routes`` tells whose
    a row is and ``place`` which of them this one is: actors of place 0 make the rows, those of the last end them.
    ``takes``: what one replica takes, and how many there are at least; a processor behind this one adds it to its own.
    """

    spec: PipelineSpec
    columns: RowColumns = field(default_factory=RowColumns)
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocess: RowFunction | None = None
    postprocess: RowFunction | None = None
    dialect: Dialect = field(default_factory=TrunnionDialect)
    on_error: Literal["row", "raise"] = "row"
    skip_failed: bool = True
    max_pending: int | None = None
    prefix_order: bool = False
    adapter_root: str | None = None
    owns_group: bool = False
    recovery: Recovery = field(default_factory=Recovery)
    desk: Any = None
    keeps: bool = False
    share: Share = "deterministic"
    routes: Routes = field(default_factory=Routes)
    place: int = 0
    takes: tuple[Resources, int] | None = None

    @property
    def last(self) -> bool:
        """Tell whether rows are final behind this job's actors."""
        return self.place == len(self.routes.names)


class BatchWorker:
    """Answer blocks of rows. Ray Data calls it from several threads at once, one block each.

    Whatever fails while the engine starts is kept and raised by the first call: an error raised by the constructor
    of an actor loses its type on the way.
    """

    def __init__(self, job: BatchJob) -> None:
        self._job = job
        self._failure: TrunnionError | None = None
        self._runner: BlockRunner | None = None
        self._before, self._after = threading.Lock(), threading.Lock()
        self._desk: DeskClient | None = None
        self._prices: Mapping[str, float] | None = None
        self._deaths_told = 0
        try:
            self._options = RowOptions(columns=job.columns, **job.options)
            if job.desk is not None:
                self._desk = DeskClient(job.desk, job.spec, keeps=job.keeps, share=job.share)
            self._runner = BlockRunner(
                job.spec,
                fail_fast=job.on_error == "raise",
                max_pending=job.max_pending,
                prefix_order=job.prefix_order,
                adapter_root=job.adapter_root,
                recovery=job.recovery,
                desk=self._desk,
            )
        except TrunnionError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - kept for the first call, which raises it
            name = type(error).__name__
            self._failure = InternalError(f"engine {job.spec.engine.engine!r} did not start: {name}: {error}")
            self._failure.__cause__ = error
        if self._runner is not None:
            # Runs when Ray lets the worker go, else when the process exits: before the finalizers of the engine's
            # library, which are older and would end its processes under it.
            self._prices = self._runner.pipeline.info.details.get("prices")
            underway = None if self._desk is None else Underway(self._runner, self._desk, self._prices)
            self._close = weakref.finalize(self, _close, self._runner, underway, owns_group=job.owns_group)
            logger.info("%s", self._runner.pipeline.explain())

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the block with every row answered or marked as failed.

        Raises:
            TrunnionError: The engine did not start or died; or, with ``on_error="raise"``, a row failed.
        """
        try:
            return self._answer(Columns(table))
        except TrunnionError as error:
            # Ray would put an exception of its own in the place of ours, and lose ours on the way to the driver.
            DataContext.get_current().raise_original_map_exception = True
            if isinstance(error, EngineDead):
                self._failure = error
            raise

    def _answer(self, columns: Columns) -> pa.Table:
        if self._failure is not None or self._runner is None:
            raise self._failure or InternalError("the replica was closed")
        if not columns.table.num_rows:
            return self._empty(columns)
        rows, requests, places = self._read(columns)
        own = [request for request in requests if request is not None]
        call = None if self._desk is None else self._desk.call()
        answered = iter(self._runner.run(own, call))
        outcomes = [None if request is None else self._told(next(answered)) for request in requests]
        table, failed = self._write(columns, rows, outcomes)
        if places is not None:
            table = Columns(table).extended({_PLACE: places}, {_PLACE: pa.int16()})
        assert table.num_rows == columns.table.num_rows, f"{columns.table.num_rows} rows in, {table.num_rows} out"
        if self._desk is not None and call is not None:
            self._desk.end(call, count_block(outcomes, failed, self._prices), self._new_deaths(self._runner.deaths))
        return table

    def _told(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, TrunnionError):
            return self._job.routes.told(outcome, () if self._job.place else self._options.base_models)
        return outcome

    def _new_deaths(self, deaths: int) -> int:
        with self._before:
            told, self._deaths_told = self._deaths_told, deaths
        return deaths - told

    def _read(
        self, columns: Columns
    ) -> tuple[list[dict[str, Any]], list[RowRequest | TrunnionError | None], list[int] | None]:
        """Preprocess every row and make its request, or note why it has none; None for rows of other models.

        Returns as well whose the rows are, where actors of further models are to know.
        """
        job = self._job
        rows = columns.rows(_names(job.columns) if self._plain(columns) else None)
        for row in rows:
            row.pop(_PLACE, None)
        requests: list[RowRequest | TrunnionError | None] = []
        if job.place:
            places = columns.values(_PLACE)
            requests += [
                self._request(row, self._options) if place == job.place else None
                for row, place in zip(rows, places, strict=True)
            ]
            return rows, requests, None if job.last else places
        # One row at a time: few functions expect to be called from several threads, and those that wait for
        # something else can be moved into tasks of their own (preprocess_map_kwargs).
        places = []
        earlier = self._earlier(columns)
        with self._before if job.preprocess is not None else contextlib.nullcontext():
            for index, row in enumerate(rows):
                error = earlier.get(index) or self._preprocess(row)
                place = job.routes.of(row.get(job.columns.model))[0] if error is None else 0
                places.append(place)
                if error is None and place == 0:
                    requests.append(self._request(row, self._options))
                else:
                    requests.append(error)
        for request in requests:
            if isinstance(request, TrunnionError) and job.on_error == "raise":
                raise request
        return rows, requests, None if job.last else places

    def _earlier(self, columns: Columns) -> dict[int, TrunnionError]:
        """Return the errors of rows that a processor before failed, by their places: they are not asked."""
        dialect = self._job.dialect
        if not self._job.skip_failed or self._job.place or dialect.error not in columns.names:
            return {}
        found = enumerate(map(dialect.earlier, columns.values(dialect.error)))
        return {index: error for index, error in found if error is not None}

    def _plain(self, columns: Columns) -> bool:
        """Tell whether the block's columns go on as they are, so that rows need not be built."""
        job = self._job
        functions = job.preprocess is not None or job.postprocess is not None
        return not functions and not job.dialect.consumed and FAILED_BEFORE not in columns.names

    def _preprocess(self, row: dict[str, Any]) -> TrunnionError | None:
        if self._job.preprocess is None:
            return failure_before(row)
        try:
            row.update(self._job.preprocess(row))
        except Exception as error:  # noqa: BLE001 - the row's own error
            return row_failure("preprocess", error)
        return None

    def _request(self, row: dict[str, Any], options: RowOptions) -> RowRequest | TrunnionError:
        job = self._job
        try:
            if job.place:
                row = {**row, job.columns.model: job.routes.of(row.get(job.columns.model))[1]}
            return job.dialect.request(row, options)
        except TrunnionError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a value nobody thought of fails its row alone
            return row_failure("row", error)

    def _write(
        self, columns: Columns, rows: list[dict[str, Any]], outcomes: list[Outcome | None]
    ) -> tuple[pa.Table, dict[int, TrunnionError]]:
        """Return the block, and the errors of rows on which postprocess failed, by their places."""
        job, dialect = self._job, self._job.dialect
        earlier = self._earlier(columns)
        outputs = [
            dialect.answered(row, outcome)
            if isinstance(outcome, Answer)
            else self._passed(columns, index)
            if outcome is None
            else {**dict.fromkeys(dialect.types), dialect.error: columns.values(dialect.error)[index]}
            if index in earlier
            else dialect.failed(row, outcome)
            for index, (row, outcome) in enumerate(zip(rows, outcomes, strict=True))
        ]
        if self._plain(columns):
            made = {name: [output[name] for output in outputs] for name in dialect.types}
            return Columns(self._unplaced(columns.table)).extended(made, dialect.types), {}
        late: dict[int, TrunnionError] = {}
        written: list[Mapping[str, Any]] = []
        postprocess = job.postprocess if job.last else None
        with self._after if postprocess is not None else contextlib.nullcontext():
            for index, (row, output) in enumerate(zip(rows, outputs, strict=True)):
                outcome = outcomes[index]
                if isinstance(outcome, TrunnionError) or (outcome is None and output[dialect.error] is not None):
                    written.append(self._failed(columns, index, output))
                    continue
                for name in dialect.consumed:
                    row.pop(name, None)
                row.update(output)
                if postprocess is not None:
                    result = self._postprocess(postprocess, row)
                    if isinstance(result, TrunnionError):
                        late[index] = result
                        told = dialect.failed(row, result)[dialect.error]
                        result = {**self._original(columns, index), **output, dialect.error: told}  # the answer stays
                    written.append(result)
                else:
                    written.append(row)
        return columns.written(written, dialect.types), late

    def _passed(self, columns: Columns, index: int) -> dict[str, Any]:
        """Return the output columns of a row that is another model's: as they came, or empty before their time."""
        names = self._job.dialect.types
        if not self._job.place:
            return dict.fromkeys(names)
        return {name: columns.values(name)[index] for name in names}

    def _unplaced(self, table: pa.Table) -> pa.Table:
        return table.drop_columns([_PLACE]) if _PLACE in table.column_names else table

    def _postprocess(self, function: RowFunction, row: dict[str, Any]) -> Mapping[str, Any] | TrunnionError:
        job = self._job
        try:
            result = dict(function(row))
        except Exception as error:
            failure = row_failure("postprocess", error)
            if job.on_error == "raise":
                raise failure from error
            return failure
        if job.on_error == "row":
            result.setdefault(job.dialect.error, job.dialect.no_error)
        return result

    def _failed(self, columns: Columns, index: int, output: dict[str, Any]) -> dict[str, Any]:
        """Return a failed row: its input as it came, and its error."""
        dialect = self._job.dialect
        if self._job.postprocess is not None and dialect.bare_errors:
            output = {dialect.error: output[dialect.error]}
        return {**self._original(columns, index), **output}

    def _original(self, columns: Columns, index: int) -> dict[str, Any]:
        """Return a row as it came."""
        made = {FAILED_BEFORE, _PLACE, *(self._job.dialect.types if self._job.place else ())}
        return {name: columns.values(name)[index] for name in columns.names if name not in made}

    def _empty(self, columns: Columns) -> pa.Table:
        if self._plain(columns):
            return columns.extended({name: [] for name in self._job.dialect.types}, self._job.dialect.types)
        return pa.table({})

    def close(self) -> None:
        """Stop the engine. Idempotent."""
        if self._runner is not None:
            self._runner = None
            self._close()


def _close(runner: BlockRunner, underway: Underway | None, *, owns_group: bool) -> None:
    if underway is not None:
        underway.stop()
    with contextlib.suppress(Exception):  # the process ends either way
        runner.close()
    if owns_group:
        with contextlib.suppress(Exception):
            remove_own_group()


def _names(columns: RowColumns) -> list[str]:
    names = (getattr(columns, name) for name in RowColumns.__dataclass_fields__)
    return [name for name in names if name]
