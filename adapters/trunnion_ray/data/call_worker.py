"""Be the actor of a job whose rows are calls: the caller's preprocess, the calls, the caller's postprocess."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa
from ray.data import DataContext

from trunnion.errors import InternalError, TrunnionError

from .calls import Called, Caller, CallRunner
from .failures import RowFunction, row_failure
from .outside import FAILED_BEFORE, failure_before
from .tables import Columns

ERROR: Final = "__inference_error__"
"""Ray's name of the column that tells failed rows: empty text in the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallJob:
    """Hold what crosses to the replicas.

    Attributes:
        caller: Answers the rows.
        answered: Returns the output columns of an answered row.
        failed: The output columns of a failed row, beside the error.
        consumed: Columns of an answered row that are not passed on.
        types: Arrow types of output columns that have one.
    """

    caller: Caller
    answered: Callable[[Called], Mapping[str, Any]]
    failed: Mapping[str, Any]
    consumed: tuple[str, ...] = ()
    types: Mapping[str, pa.DataType]
    preprocess: RowFunction | None = None
    postprocess: RowFunction | None = None
    on_error: Literal["row", "raise"] = "row"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastStep:
    """Replace an answered row by what the postprocess returns; failed rows pass as they are."""

    function: RowFunction
    failed: Mapping[str, Any]
    on_error: Literal["row", "raise"]

    def __call__(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """Return the final row. Raises the row's error if the job is to end with it."""
        if row.get(ERROR):
            return row
        before = dict(row)
        try:
            result = dict(self.function(row))
        except Exception as error:
            failure = row_failure("postprocess", error)
            if self.on_error == "raise":
                raise failure from error
            return failed_row(before, self.failed, failure)
        if self.on_error == "row":
            result.setdefault(ERROR, "")
        return result


def failed_row(row: Mapping[str, Any], failed: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:
    """Return a failed row: its input as it came, empty output columns, and its error."""
    return {**row, **failed, ERROR: f"{type(error).__name__}: {error}"}


class CallBatchWorker:
    """Answer blocks of rows by calls. Ray Data calls it from several threads at once, one block each.

    What fails at start is kept and raised by the first call: an error raised by the constructor of an actor loses
    its type on the way.
    """

    def __init__(self, job: CallJob) -> None:
        self._job = job
        self._failure: TrunnionError | None = None
        self._runner: CallRunner | None = None
        self._before, self._after = threading.Lock(), threading.Lock()
        try:
            self._runner = CallRunner(job.caller, fail_fast=job.on_error == "raise")
        except TrunnionError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - kept for the first call, which raises it
            self._failure = InternalError(f"the calls cannot be made: {type(error).__name__}: {error}")
            self._failure.__cause__ = error
        else:
            self._close = weakref.finalize(self, _close, self._runner)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the block with every row answered or marked as failed.

        Raises:
            TrunnionError: What is called is not there; or, with ``on_error="raise"``, a row failed.
        """
        try:
            return self._answer(Columns(table))
        except TrunnionError:
            DataContext.get_current().raise_original_map_exception = True  # else ours is lost on the way
            raise

    def _answer(self, columns: Columns) -> pa.Table:
        if self._failure is not None or self._runner is None:
            raise self._failure or InternalError("the replica was closed")
        if not columns.table.num_rows:
            return pa.table({})
        rows = columns.rows()
        with self._before:  # one row at a time: few functions expect to be called from several threads
            asked = [self._preprocess(row) for row in rows]
        outcomes = self._runner.run(asked)
        originals = columns.rows()
        with self._after:
            written = [
                self._written(row, original, outcome)
                for row, original, outcome in zip(rows, originals, outcomes, strict=True)
            ]
        return columns.written(written, {**self._job.types, ERROR: pa.string()})

    def _preprocess(self, row: dict[str, Any]) -> dict[str, Any] | TrunnionError:
        error = failure_before(row)
        if error is None and self._job.preprocess is not None:
            try:
                row.update(self._job.preprocess(row))
            except Exception as failure:  # noqa: BLE001 - the row's own error
                error = row_failure("preprocess", failure)
        return row if error is None else error

    def _written(
        self, row: dict[str, Any], original: dict[str, Any], outcome: Called | TrunnionError
    ) -> Mapping[str, Any]:
        job = self._job
        original.pop(FAILED_BEFORE, None)
        if isinstance(outcome, TrunnionError):
            return failed_row(original, job.failed, outcome)
        for name in job.consumed:
            row.pop(name, None)
        row.update(job.answered(outcome))
        row[ERROR] = ""
        if job.postprocess is None:
            return row
        return LastStep(function=job.postprocess, failed=job.failed, on_error=job.on_error)(row)

    def close(self) -> None:
        """Stop the calls. Idempotent."""
        if self._runner is not None:
            self._runner = None
            self._close()


def _close(runner: CallRunner) -> None:
    with contextlib.suppress(Exception):  # the process ends either way
        runner.close()
