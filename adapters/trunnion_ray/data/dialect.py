"""Speak one vocabulary of columns: which make a request, and which an answered or a failed row gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa

from trunnion import GenerateRequest
from trunnion.errors import TrunnionError
from trunnion.rows import RowOptions, completion_to_columns, error_columns, row_to_request
from trunnion_batch.arrow import OUTPUT_TYPES

from .runner import Answer


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

    def request(self, row: Mapping[str, Any], options: RowOptions) -> GenerateRequest:
        """Return the request of a row. Raises :class:`InvalidArgument` that names the column."""
        ...

    def answered(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """Return the output columns of an answered row."""
        ...

    def failed(self, row: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:
        """Return the output columns of a failed row."""
        ...


class TrunnionDialect:
    """Give the columns of :data:`trunnion.rows.OUTPUT_COLUMNS`."""

    types: Mapping[str, pa.DataType] = OUTPUT_TYPES
    consumed: frozenset[str] = frozenset()
    error = "error"
    no_error: Any = None
    bare_errors = True

    def request(self, row: Mapping[str, Any], options: RowOptions) -> GenerateRequest:
        """Return the request of a row. Raises :class:`InvalidArgument` that names the column."""
        return row_to_request(row, options)

    def answered(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:  # noqa: ARG002
        """Return the output columns of an answered row."""
        return completion_to_columns(answer.completion)

    def failed(self, row: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:  # noqa: ARG002
        """Return the output columns of a failed row."""
        return error_columns(error)
