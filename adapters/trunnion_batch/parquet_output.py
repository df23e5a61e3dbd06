"""Write rows to Parquet: with the schema of the input, or with one that is found when all rows are there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from trunnion.errors import InternalError
from trunnion.pooling import Task

from .arrow import output_schema, output_types
from .row_input import import_parquet
from .row_output import MISFIT, JsonlOutput, RowOutput

_GROUP: Final = 2048
_MISFITS: Final = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)
_SHOWN: Final = 60
"""Characters of a value that an error shows."""


class ParquetOutput(RowOutput):
    """Write Parquet with the schema of a Parquet input and the output columns."""

    def __init__(self, path: Path, input_schema: Any, task: Task = "generate") -> None:
        super().__init__(path, task)
        self._schema = output_schema(input_schema, task)
        self._writer = import_parquet().ParquetWriter(self.temporary, self._schema)
        self._buffer: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        """Buffer a row; a row group is written at a time."""
        self._buffer.append(row)
        self.rows += 1
        if len(self._buffer) >= _GROUP:
            self._write_group()

    def _write_group(self) -> None:
        group, self._buffer = self._buffer, []
        self._writer.write_table(pa.Table.from_pylist(group, schema=self._schema))

    def close(self) -> None:
        """Write the last row group and the footer."""
        if self._buffer:
            self._write_group()
        self._writer.close()


class SpooledParquetOutput(JsonlOutput):
    """Write JSON lines first and Parquet at the end: only all the rows tell the columns of a JSONL input."""

    spools = True

    def __init__(self, path: Path, task: Task = "generate") -> None:
        import_parquet()
        super().__init__(path, task=task)

    def commit(self) -> None:
        """Turn the lines into Parquet, in two passes of bounded memory."""
        self.close()
        assert self.path is not None
        assert self.temporary is not None
        made = self.temporary.with_suffix(".parquet.tmp")
        try:
            schema = output_schema(None, self.task)
            fixed = frozenset(schema.names)
            for rows in _groups(self.temporary):
                schema = pa.unify_schemas([schema, _inferred(rows, skip=fixed)], promote_options="permissive")
            with import_parquet().ParquetWriter(made, schema) as writer:
                for rows in _groups(self.temporary):
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        except _MISFITS as error:
            made.unlink(missing_ok=True)
            column, said = _misfit(self.temporary, output_types(self.task))
            raise InternalError(
                f"the rows do not fit into the columns of one Parquet file: {said or error}; name an OUTPUT that ends "
                "in .jsonl, or make the column one type, such as its JSON text; all rows are kept, as JSON lines",
                param=column,
                code=MISFIT,
            ) from error
        self._place(made)
        self._clear(self.temporary)
        self.temporary.unlink()


def _inferred(rows: list[dict[str, Any]], *, skip: frozenset[str]) -> Any:
    """Return the schema of the columns that any of the rows has."""
    names = dict.fromkeys(name for row in rows for name in row if name not in skip)
    return pa.schema([(name, pa.array([row.get(name) for row in rows]).type) for name in names])


def _groups(path: Path) -> Iterator[list[dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        while lines := list(itertools.islice(file, _GROUP)):
            yield [json.loads(line) for line in lines]


def _misfit(path: Path, fixed: Mapping[str, pa.DataType]) -> tuple[str | None, str]:
    """Return the first column whose values have no common type, and the row where that shows; else None and ""."""
    types: dict[str, pa.DataType] = {}
    seen: set[tuple[str, type]] = set()
    numbered = enumerate(itertools.chain.from_iterable(_groups(path)), 1)
    for number, row in numbered:
        for name, value in row.items():
            if value is None or (name, type(value)) in seen:
                continue
            before = fixed.get(name, types.get(name))
            try:
                if name in fixed:
                    pa.array([value], type=before)
                    continue
                kind = pa.array([value]).type
                both = [pa.schema([(name, one)]) for one in (before or kind, kind)]
                types[name] = pa.unify_schemas(both, promote_options="permissive").field(name).type
            except _MISFITS:
                shown = json.dumps(value, ensure_ascii=False)
                shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
                known = f"{'the output column holds' if name in fixed else 'the rows before hold'} {before}"
                known = "Parquet has no type for it" if before is None else known
                return name, f"column {name!r} of row {number} is {shown}, and {known}"
            if isinstance(value, str | bool | float):  # others differ from value to value
                seen.add((name, type(value)))
    return None, ""
