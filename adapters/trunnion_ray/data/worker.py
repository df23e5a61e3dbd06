"""Be the actor of a batch job: it holds the engine, and everything between a row and its answer happens in it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from trunnion import GenerateRequest, PipelineSpec
from trunnion.errors import EngineDead, InternalError, TrunnionError
from trunnion.rows import RowColumns, RowOptions, row_to_request

from .failures import row_failure
from .runner import Answer, BlockRunner, Outcome
from .shape import Shape, TrunnionShape
from .tables import Columns

logger = logging.getLogger("trunnion.data")

RowFunction = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """Hold what crosses to the replicas. ``failed_before`` names a column with the error of an earlier step."""

    spec: PipelineSpec
    columns: RowColumns = field(default_factory=RowColumns)
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocess: RowFunction | None = None
    postprocess: RowFunction | None = None
    shape: Shape = field(default_factory=TrunnionShape)
    on_error: Literal["row", "raise"] = "row"
    max_pending: int | None = None
    adapter_root: str | None = None
    ignored_sampling: frozenset[str] = frozenset()


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
        try:
            self._options = RowOptions(columns=job.columns, **job.options)
            self._runner = BlockRunner(
                job.spec,
                fail_fast=job.on_error == "raise",
                max_pending=job.max_pending,
                adapter_root=job.adapter_root,
            )
        except TrunnionError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - kept for the first call, which raises it
            name = type(error).__name__
            self._failure = InternalError(f"engine {job.spec.engine.engine!r} did not start: {name}: {error}")
            self._failure.__cause__ = error
        if self._runner is not None:
            atexit.register(self.close)
            logger.info("%s", self._runner.pipeline.explain())

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the block with every row answered or marked as failed.

        Raises:
            TrunnionError: The engine did not start or died; or, with ``on_error="raise"``, a row failed.
        """
        if self._failure is not None or self._runner is None:
            raise self._failure or InternalError("the replica was closed")
        columns = Columns(table)
        if not table.num_rows:
            return self._empty(columns)
        rows, requests = self._read(columns)
        try:
            outcomes = self._runner.run(requests)
        except EngineDead as error:
            self._failure = error
            raise
        return self._write(columns, rows, outcomes)

    def _read(self, columns: Columns) -> tuple[list[dict[str, Any]], list[GenerateRequest | TrunnionError]]:
        """Preprocess every row and make its request, or note why it has none."""
        job, options = self._job, self._options
        whole = job.preprocess is not None or job.postprocess is not None
        rows = columns.rows(None if whole else _names(job.columns))
        requests: list[GenerateRequest | TrunnionError] = []
        # One row at a time: few functions expect to be called from several threads, and those that wait for
        # something else can be moved into tasks of their own (preprocess_map_kwargs).
        with self._before if job.preprocess is not None else contextlib.nullcontext():
            for row in rows:
                error = self._preprocess(row)
                requests.append(self._request(row, options) if error is None else error)
        for request in requests:
            if isinstance(request, TrunnionError) and job.on_error == "raise":
                raise request
        return rows, requests

    def _preprocess(self, row: dict[str, Any]) -> TrunnionError | None:
        if self._job.preprocess is None:
            return None
        try:
            row.update(self._job.preprocess(row))
        except Exception as error:  # noqa: BLE001 - the row's own error
            return row_failure("preprocess", error)
        return None

    def _request(self, row: dict[str, Any], options: RowOptions) -> GenerateRequest | TrunnionError:
        try:
            return row_to_request(row, options)
        except TrunnionError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a value nobody thought of fails its row alone
            return row_failure("row", error)

    def _write(self, columns: Columns, rows: list[dict[str, Any]], outcomes: list[Outcome]) -> pa.Table:
        job, shape = self._job, self._job.shape
        outputs = [
            shape.answered(row, outcome) if isinstance(outcome, Answer) else shape.failed(row, outcome)
            for row, outcome in zip(rows, outcomes, strict=True)
        ]
        if job.preprocess is None and job.postprocess is None and not shape.consumed:
            made = {name: [output[name] for output in outputs] for name in shape.types}
            return columns.extended(made, shape.types)
        failed = [None if isinstance(outcome, Answer) else outcome for outcome in outcomes]
        originals = columns.rows() if any(failed) else []
        written: list[Mapping[str, Any]] = []
        with self._after if job.postprocess is not None else contextlib.nullcontext():
            for index, (row, output) in enumerate(zip(rows, outputs, strict=True)):
                error = failed[index]
                if error is not None:
                    written.append(self._failed(originals[index], error))
                    continue
                for name in shape.consumed:
                    row.pop(name, None)
                row.update(output)
                written.append(row if job.postprocess is None else self._postprocess(columns, index, row))
        return columns.written(written, shape.types)

    def _postprocess(self, columns: Columns, index: int, row: dict[str, Any]) -> Mapping[str, Any]:
        job = self._job
        assert job.postprocess is not None
        try:
            result = dict(job.postprocess(row))
        except Exception as error:
            failure = row_failure("postprocess", error)
            if job.on_error == "raise":
                raise failure from error
            return self._failed(columns.rows()[index], failure)
        if job.on_error == "row":
            result.setdefault(job.shape.error, job.shape.no_error)
        return result

    def _failed(self, original: dict[str, Any], error: TrunnionError) -> dict[str, Any]:
        """Return a failed row: its input as it came, and its error."""
        shape = self._job.shape
        output = shape.failed(original, error)
        if self._job.postprocess is not None and shape.bare_errors:
            output = {shape.error: output[shape.error]}
        return {**original, **output}

    def _empty(self, columns: Columns) -> pa.Table:
        if self._job.preprocess is None and self._job.postprocess is None and not self._job.shape.consumed:
            return columns.extended({name: [] for name in self._job.shape.types}, self._job.shape.types)
        return pa.table({})

    def close(self) -> None:
        """Stop the engine. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            atexit.unregister(self.close)
            with contextlib.suppress(Exception):  # the process ends either way
                runner.close()

    def __del__(self) -> None:
        """Stop the engine when Ray ends the actor in peace; otherwise ``atexit`` or the engine's own guard does."""
        with contextlib.suppress(Exception):
            self.close()


def _names(columns: RowColumns) -> list[str]:
    names = (getattr(columns, name) for name in RowColumns.__dataclass_fields__)
    return [name for name in names if name]
