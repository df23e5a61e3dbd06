"""Columns: what passes through keeps its type, and blocks of any rows share a schema."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trunnion.errors import InvalidArgument
from trunnion.rows import OUTPUT_COLUMNS, error_columns, error_from_column
from trunnion_batch.arrow import OUTPUT_TYPES
from trunnion_ray.data.tables import Columns, to_array


def test_there_is_a_type_for_every_output_column():
    assert tuple(OUTPUT_TYPES) == OUTPUT_COLUMNS


def test_blocks_with_and_without_errors_share_a_schema_that_parquet_takes(tmp_path):
    table = pa.table({"id": [1]})
    failed = error_columns(InvalidArgument("no", param="x", retry_after=1.5, details={"a": [1]}))
    with_error = Columns(table).extended({name: [value] for name, value in failed.items()}, OUTPUT_TYPES)
    without = Columns(table).extended({name: [None] for name in failed}, OUTPUT_TYPES)
    empty = Columns(table.slice(0, 0)).extended({name: [] for name in failed}, OUTPUT_TYPES)
    assert with_error.schema == without.schema == empty.schema
    pq.write_table(pa.concat_tables([with_error, without, empty]), tmp_path / "x.parquet")
    back = pq.read_table(tmp_path / "x.parquet").to_pylist()
    error = error_from_column(back[0]["error"])
    assert (type(error), error.param, error.retry_after, error.details) == (InvalidArgument, "x", 1.5, {"a": [1]})
    assert back[1]["error"] is None


def test_untouched_columns_keep_their_type_and_touched_ones_if_they_can():
    table = pa.table(
        {
            "small": pa.array([1, None], pa.int8()),
            "word": pa.array(["a", "b"]).dictionary_encode(),
            "number": pa.array([1, 2], pa.int16()),
            "list": pa.array([[1], []], pa.list_(pa.int8())),
        }
    )
    columns = Columns(table)
    rows = columns.rows()
    rows[0]["number"] = 7
    rows[1]["list"].append(3)  # in place
    rows[1]["new"] = "x"
    written = columns.written(rows, {})
    assert written.schema.field("small").type == pa.int8()
    assert written.schema.field("word").type == table.schema.field("word").type
    assert written.schema.field("number").type == pa.int16()
    assert written.column("list").to_pylist() == [[1], [3]]
    assert written.column("new").to_pylist() == [None, "x"]


def test_values_that_arrow_has_no_type_for_still_become_a_column():
    assert to_array("x", [1, "a", {"b": 2}]).to_pylist() == [1, "a", {"b": 2}]
    assert to_array("x", ["text"], pa.int64()).to_pylist() == ["text"]
    assert len(to_array("x", [np.zeros((2, 2)), np.ones((2, 2))])) == 2


def test_a_block_without_columns_has_rows():
    assert Columns(pa.table({"a": [1, 2]})).rows(["b"]) == [{}, {}]
