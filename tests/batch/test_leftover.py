"""An unfinished output goes when the finished one has its rows, and stays when anything would be lost."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest

from trunnion.errors import Overloaded
from trunnion.row_tasks import failed_columns
from trunnion_batch.leftover import HOST
from trunnion_batch.row_output import JsonlOutput, open_output, partial_path


def row(number, text="x"):
    return {"id": number, **failed_columns(Overloaded("full")), "generated_text": text, "error": None}


def failed(number):
    return {"id": number, **failed_columns(Overloaded("full"))}


def write_all(path, rows, schema=None):
    output = open_output(str(path), None, schema)
    for one in rows:
        output.write(one)
    return output


SAME = [row(0), row(1), row(2)]
CASES = [
    (SAME[:2], True),
    (SAME, True),
    ([row(0), failed(1)], True),  # it was asked again
    ([row(0), failed(7)], False),  # of another input
    ([row(0), row(1, "another answer")], False),
    ([*SAME, row(3)], False),
    ([*SAME, failed(3)], False),
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "spooled"])
@pytest.mark.parametrize(("before", "goes"), CASES)
def test_it_goes_if_its_rows_are_in_the_output(tmp_path, kind, before, goes):
    path = tmp_path / ("out.jsonl" if kind == "jsonl" else "out.parquet")
    schema = pa.schema([("id", pa.int64())]) if kind == "parquet" else None
    kept = write_all(path, before, schema).abandon()
    assert kept == partial_path(path, lines=kind == "spooled")
    output = write_all(path, SAME, schema)
    output.commit()
    assert kept.exists() is not goes
    assert output.leftover == (None if goes else kept)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted({path.name, *([] if goes else [kept.name])})


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_what_is_no_output_of_ours_stays(tmp_path, name):
    path = tmp_path / name
    schema = pa.schema([("id", pa.int64())])
    left = partial_path(path)
    left.write_bytes(b"notes\n")
    output = write_all(path, [], schema)
    output.commit()
    assert left.read_bytes() == b"notes\n"
    assert output.leftover == left


def test_rows_beside_the_name_of_another_run_count_as_well(tmp_path):
    path = tmp_path / "out.jsonl"
    kept = write_all(path, SAME[:1]).abandon()
    output = write_all(path, SAME)
    path.write_text("another run's")
    output.commit()
    assert (output.path.name, output.leftover, kept.exists()) == ("out.2.jsonl", None, False)
    assert [json.loads(line)["id"] for line in output.path.read_text().splitlines()] == [0, 1, 2]


def test_what_killed_runs_began_goes_when_one_is_finished(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ruins = [tmp_path / f".out.jsonl.{HOST}-{gone.pid}-0{i}.tmp" for i in range(2)]
    kept = [
        tmp_path / f".out.jsonl.{HOST}-{os.getpid()}-00.tmp",  # of a run that goes on
        tmp_path / f".out.jsonl.elsewhere-{gone.pid}-00.tmp",  # of another machine
        tmp_path / f".out.jsonl.{HOST}-many-00.tmp",
        tmp_path / f".other.jsonl.{HOST}-{gone.pid}-00.tmp",
    ]
    for path in (*ruins, *kept):
        path.touch()
    output = JsonlOutput(tmp_path / "out.jsonl")
    output.write({"a": 1})
    output.commit()
    assert {*tmp_path.iterdir()} == {*kept, tmp_path / "out.jsonl"}
