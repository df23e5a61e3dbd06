"""Run preprocess and postprocess in tasks of their own, for those that wait or compute for long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from trunnion.errors import TrunnionError

from .dialect import Dialect
from .failures import RowFunction, row_failure

FAILED_BEFORE: Final = "__trunnion_error"
"""The column in which a row that failed in preprocess travels to the engine's actor: JSON text, or empty."""

OnError = Literal["row", "raise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Merge what the function returns into the row."""

    function: RowFunction
    on_error: OnError
    skip: Dialect | None = None
    """Whose errors of a processor before make a row pass as it is; None: every row is taken."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row for the engine's actor. Raises the row's error if the job is to end with it."""
        if self.skip is not None and self.skip.earlier(row.get(self.skip.error)) is not None:
            return {**row, FAILED_BEFORE: ""}
        try:
            return {**row, **self.function(dict(row)), FAILED_BEFORE: ""}
        except Exception as error:
            failure = row_failure("preprocess", error)
            if self.on_error == "raise":
                raise failure from error
            return {**row, FAILED_BEFORE: json.dumps(failure.to_dict(), default=str)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocess:
    """Replace an answered row by what the function returns; failed rows pass as they are."""

    function: RowFunction
    dialect: Dialect
    on_error: OnError

    def __call__(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """Return the final row. Raises the row's error if the job is to end with it."""
        error_name, no_error = self.dialect.error, self.dialect.no_error
        if row.get(error_name) != no_error:
            return row
        try:
            result = dict(self.function(dict(row)))
        except Exception as error:
            failure = row_failure("postprocess", error)
            if self.on_error == "raise":
                raise failure from error
            return {**row, error_name: self.dialect.failed(row, failure)[error_name]}  # it was answered, and stays so
        if self.on_error == "row":
            result.setdefault(error_name, no_error)
        return result


def failure_before(row: dict[str, Any]) -> TrunnionError | None:
    """Take the error of an earlier step out of a row."""
    text = row.pop(FAILED_BEFORE, None)
    return TrunnionError.from_dict(json.loads(text)) if text else None
