"""Rows that have no common schema are told by their column and row, and kept as lines."""

import json

import pyarrow.parquet as pq
import pytest

from trunnion.errors import InternalError
from trunnion_batch.row_output import MISFIT, open_output


@pytest.mark.parametrize(
    ("first", "odd", "said"),
    [
        (1, "two", """column 'x' of row 3000 is "two", and the rows before hold int64"""),
        ({"a": 1}, {"a": "b"}, """column 'x' of row 3000 is {"a": "b"}, and the rows before hold struct<a: int64>"""),
        ("text", [1], "column 'x' of row 3000 is [1], and the rows before hold string"),
        (1, 2**70, f"column 'x' of row 3000 is {2**70}, and the rows before hold int64"),
    ],
)
def test_a_column_without_one_type_is_named_with_its_row(tmp_path, first, odd, said):
    output = open_output(str(tmp_path / "out.parquet"), None, None)
    for _ in range(2999):
        output.write({"x": first, "error": None})
    output.write({"x": odd, "error": None})
    with pytest.raises(InternalError) as caught:
        output.commit()
    assert said in caught.value.message
    assert (caught.value.param, caught.value.code) == ("x", MISFIT)
    kept = output.abandon()
    assert kept.name == "out.partial.jsonl"
    assert len([json.loads(line) for line in kept.read_text().splitlines()]) == 3000
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.jsonl"]


def test_an_output_column_that_a_template_made_something_else_is_named(tmp_path):
    output = open_output(str(tmp_path / "out.parquet"), None, None)
    output.write({"generated_text": 5, "error": None})
    with pytest.raises(
        InternalError, match="column 'generated_text' of row 1 is 5, and the output column holds string"
    ):
        output.commit()
    output.abandon()


def test_numbers_with_and_without_a_fraction_have_one_type(tmp_path):
    output = open_output(str(tmp_path / "out.parquet"), None, None)
    for value in (1, 1.5, None):
        output.write({"x": value, "error": None})
    output.commit()
    assert pq.read_table(tmp_path / "out.parquet").column("x").to_pylist() == [1.0, 1.5, None]
