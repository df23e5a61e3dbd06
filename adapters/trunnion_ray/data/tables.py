"""Turn rows into Arrow columns with types that do not depend on which rows a block happens to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from ._ray_private import to_arrow_array

_ARROW_ERRORS: Final = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError)


def to_array(name: str, values: Sequence[Any], wanted: pa.DataType | None = None) -> pa.Array[Any]:
    """Return a column: of the wanted type if every value fits it, else of the type Ray Data infers."""
    if wanted is not None:
        try:
            return pa.array(values, type=wanted)
        except _ARROW_ERRORS:
            pass
    return to_arrow_array(values, name)


class Columns:
    """Read a block by rows, and write rows back beside what is left of its columns.

    Columns whose values were not touched go on as they came, whatever their type; others are built anew, with the
    type they had if the values still fit.
    """

    def __init__(self, table: pa.Table) -> None:
        """Read nothing yet."""
        self.table = table
        self._values: dict[str, list[Any]] = {}

    @property
    def names(self) -> list[str]:
        """Return the names of the block's columns."""
        return list(self.table.column_names)

    def values(self, name: str) -> list[Any]:
        """Return a column as Python values, converted once."""
        if name not in self._values:
            self._values[name] = self.table.column(name).to_pylist()
        return self._values[name]

    def rows(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return new dictionaries, one per row, of the named columns or of all."""
        names = self.names if names is None else [name for name in names if name in self.table.column_names]
        if not names:
            return [{} for _ in range(self.table.num_rows)]
        columns = [self.values(name) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def extended(self, columns: Mapping[str, Sequence[Any]], types: Mapping[str, pa.DataType]) -> pa.Table:
        """Return the block as it came, with columns added or replaced."""
        table = self.table
        for name, values in columns.items():
            array = to_array(name, values, types.get(name))
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, array)
            else:
                table = table.append_column(name, array)
        return table

    def written(self, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType]) -> pa.Table:
        """Return a block of the given rows; a column that a row lacks is null there."""
        names: dict[str, None] = {}
        for row in rows:
            if names.keys() != row.keys():
                names.update(dict.fromkeys(row))
        arrays = {name: self._column(name, [row.get(name) for row in rows], types.get(name)) for name in names}
        return pa.Table.from_arrays(list(arrays.values()), names=list(arrays))

    def _column(self, name: str, values: list[Any], wanted: pa.DataType | None) -> pa.Array[Any] | pa.ChunkedArray[Any]:
        if wanted is not None or name not in self.table.column_names:
            return to_array(name, values, wanted)
        column = self.table.column(name)
        old = self._values.get(name)
        # A nested value may have been changed in place, which identity does not show.
        if old is not None and not pa.types.is_nested(column.type) and _same(old, values):
            return column
        return to_array(name, values, None if isinstance(column.type, pa.BaseExtensionType) else column.type)


def _same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
