"""Speak one vocabulary of columns: which make a request, and which an answered or a failed row gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import pyarrow as pa

from trunnion.errors import TrunnionError
from trunnion.pooling import Task
from trunnion.row_tasks import RowRequest, answer_columns, failed_columns, task_request
from trunnion.rows import RowOptions, error_from_column
from trunnion_batch.arrow import output_types

from .runner import Answer

_MADE: Final = ("type", "code", "message")
"""What an error column of ours always holds of a failed row."""


class Dialect(Protocol):
    """Read requests from rows and write the output columns; always the same ones, with the types of ``types``.

    Attributes:
        types: Arrow types of the output columns.
        consumed: Input columns that are not passed on.
        error: Name of the column that tells failed rows.
        no_error: What it holds in an answered row.
        bare_errors: Whether a failed row that the caller's postprocess does not see keeps its input and the error
            alone, without the empty output columns.
    """

    types: Mapping[str, pa.DataType]
    consumed: frozenset[str]
    error: str
    no_error: Any
    bare_errors: bool

    def request(self, row: Mapping[str, Any], options: RowOptions) -> RowRequest:
        """Return the request of a row. Raises :class:`InvalidArgument` that names the column."""
        ...

    def answered(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """Return the output columns of an answered row."""
        ...

    def failed(self, row: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:
        """Return the output columns of a failed row."""
        ...

    def earlier(self, value: Any) -> TrunnionError | None:
        """Return the error that a processor before put into a row's error column; None for any other value."""
        ...


class TrunnionDialect:
    """Give the columns of a task, those of :data:`trunnion.row_tasks.TASK_COLUMNS`."""

    consumed: frozenset[str] = frozenset()
    error = "error"
    no_error: Any = None
    bare_errors = True

    def __init__(self, task: Task = "generate") -> None:
        self._task: Task = task
        self.types: Mapping[str, pa.DataType] = output_types(task)

    def request(self, row: Mapping[str, Any], options: RowOptions) -> RowRequest:
        """Return the request of a row. Raises :class:`InvalidArgument` that names the column."""
        return task_request(row, options)

    def answered(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:  # noqa: ARG002
        """Return the output columns of an answered row."""
        return answer_columns(answer.completion)

    def failed(self, row: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:  # noqa: ARG002
        """Return the output columns of a failed row."""
        return failed_columns(error, self._task)

    def earlier(self, value: Any) -> TrunnionError | None:
        """Return the error that a processor before put into a row's error column; None for any other value."""
        if not isinstance(value, Mapping) or any(not isinstance(value.get(name), str) for name in _MADE):
            return None  # a column of the caller's own that has this name
        try:
            return error_from_column(value)
        except (ValueError, TypeError):
            return None
