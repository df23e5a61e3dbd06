"""Say which columns an answered or a failed row gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa
from trunnion.errors import TrunnionError
from trunnion.rows import completion_to_columns, error_columns

from .runner import Answer
from .tables import OUTPUT_TYPES


class Shape(Protocol):
    """Make the output columns of a row; always the same ones, with the types of :attr:`types`.

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

    def answered(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """Return the output columns of an answered row."""
        ...

    def failed(self, row: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:
        """Return the output columns of a failed row."""
        ...


class TrunnionShape:
    """Give the columns of :data:`trunnion.rows.OUTPUT_COLUMNS`."""

    types: Mapping[str, pa.DataType] = OUTPUT_TYPES
    consumed: frozenset[str] = frozenset()
    error = "error"
    no_error: Any = None
    bare_errors = True

    def answered(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:  # noqa: ARG002
        """Return the output columns of an answered row."""
        return completion_to_columns(answer.completion)

    def failed(self, row: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:  # noqa: ARG002
        """Return the output columns of a failed row."""
        return error_columns(error)
