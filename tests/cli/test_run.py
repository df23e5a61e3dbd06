"""Batches in process: every row is accounted for, order is kept, output is whole or called partial."""

import json
import signal
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SIM = ("--engine", "sim")


def test_every_row_comes_out_once_in_order_with_its_columns_or_its_error(cli):
    rows = [{"id": i, "prompt": f"say {i}", "note": None} for i in range(300)]
    rows[7] = {"id": 7, "item": "no prompt"}
    rows[8]["sampling_params"] = {"max_tokens": 2, "temprature": 1}
    rows[9]["sampling_params"] = {"max_tokens": 2}
    rows[10]["model"] = "nobody"
    path = cli.write("in.jsonl", rows)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n{not json\n[1]")
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--set", "tpot=0.0005", "--sampling", "max_tokens=5")
    assert result.code == 0, result
    out = cli.read("out.jsonl")
    assert [row.get("id") for row in out] == [*range(300), None, None]
    for row, given in zip(out, rows, strict=False):
        assert given.items() <= row.items()
    assert out[0]["num_generated_tokens"] == 5
    assert out[0]["finish_reason"] == "length"
    assert out[0]["error"] is None
    assert out[9]["num_generated_tokens"] == 2
    errors = {index: row["error"] for index, row in enumerate(out) if row["error"]}
    assert sorted(errors) == [7, 8, 10, 300, 301]
    assert errors[7]["param"] == "messages"
    assert errors[8]["param"] == "sampling_params.temprature"
    assert errors[10]["type"] == "AdapterNotFound"
    assert out[300]["input_line"] == "{not json"
    assert "line 302 is not valid JSON" in errors[300]["message"]
    assert "302 rows in = 297 ok + 5 failed (4 invalid_argument, 1 adapter_not_found)" in result.err
    assert "written to out.jsonl" in result.err


def test_raise_ends_the_run_with_the_rows_error_and_keeps_what_there_is(cli, tmp_path):
    cli.write("in.jsonl", [{"prompt": "a"}, {"prompt": "b", "sampling_params": {"n": 0}}, {"prompt": "c"}])
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--on-error", "raise", "--concurrency", "1")
    assert result.code == 2, result
    assert "error: sampling_params.n must be 1 or more" in result.err
    assert "1 rows are kept in" in result.err
    assert not (tmp_path / "out.jsonl").exists()
    assert len(cli.read("out.jsonl.partial")) == 1


def test_a_dead_engine_ends_the_run(cli, tmp_path):
    cli.write("in.jsonl", [{"prompt": f"row {i}"} for i in range(50)])
    faults = ("--set", "fault=crash", "--set", "fault_marker=row 30", "--concurrency", "1")
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, *faults)
    assert result.code == 1
    assert "error: the simulated engine crashed" in result.err
    assert len(cli.read("out.jsonl.partial")) == 30
    assert not (tmp_path / "out.jsonl").exists()


def test_stdin_to_stdout_answers_while_the_pipe_is_open(cli):
    process = cli.start("run", "-", "-", *SIM, "--prompt-column", "q", "--adapter", "loud", stdin=subprocess.PIPE)
    for question in ("one", "two"):
        process.stdin.write(json.dumps({"q": question, "messages": "is no prompt here", "model": "loud"}) + "\n")
        process.stdin.flush()
        row = json.loads(process.stdout.readline())
        assert row["q"] == question
        assert row["generated_text"].isupper()
    out, err = process.communicate(timeout=20)
    assert out == ""
    assert "2 rows in = 2 ok + 0 failed" in err
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_the_run_quietly(cli):
    cli.write("in.jsonl", [{"prompt": f"row {i}"} for i in range(3000)])
    process = cli.start("run", "in.jsonl", "-", *SIM)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=20) == 1


def test_parquet_in_and_out_keeps_types_and_row_order(cli, tmp_path):
    messages = [{"role": "user", "content": "hi"}]
    rows = [{"id": i, "when": None if i else 5000, "messages": messages, "error": "old"} for i in range(600)]
    schema = pa.schema([
        ("id", pa.int32()),
        ("when", pa.timestamp("ms")),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("error", pa.string()),
    ])  # fmt: skip
    rows[3]["messages"] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "in.parquet")
    result = cli.run("run", "in.parquet", "out.parquet", *SIM, "--sampling", "max_tokens=3")
    assert result.code == 0, result
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == [*range(600)]
    assert table.schema.field("id").type == pa.int32()
    assert table.schema.field("when").type == pa.timestamp("ms")
    out = table.to_pylist()
    assert [index for index, row in enumerate(out) if row["error"]] == [3]
    assert out[3]["error"]["code"] == "invalid_argument"
    assert out[0]["generated_tokens"]
    result = cli.run("run", "out.parquet", "again.jsonl", *SIM, "--sampling", "max_tokens=3")
    assert result.code == 0, result
    assert cli.read("again.jsonl")[0]["when"] == "1970-01-01T00:00:05"


def test_jsonl_to_parquet_finds_the_columns_of_all_rows(cli, tmp_path):
    rows = [{"id": i, "prompt": "x"} for i in range(3000)]
    rows[2999]["late"] = 1.5
    rows[0]["id"] = None
    cli.write("in.jsonl", rows)
    assert cli.run("run", "in.jsonl", "out.parquet", *SIM, "--sampling", "max_tokens=1").code == 0
    out = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in out] == [None, *range(1, 3000)]
    assert (out[0]["late"], out[2999]["late"]) == (None, 1.5)
    cli.write("odd.jsonl", [{"prompt": "x", "id": 1}, {"prompt": "x", "id": {"a": 1}}])
    result = cli.run("run", "odd.jsonl", "odd.parquet", *SIM)
    assert result.code == 1
    assert "do not fit into the columns" in result.err
    assert len(cli.read("odd.parquet.partial")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl", "odd.jsonl", "odd.parquet.partial", "out.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_keeps_the_rows_and_leaves_no_process(cli, tmp_path, until, number):
    cli.write("in.jsonl", [{"id": i, "prompt": "x"} for i in range(1000)])
    process = cli.start("run", "in.jsonl", "out.jsonl", *SIM, "--set", "ttft=0.05", "--concurrency", "8")
    until(lambda: any(path.stat().st_size > 0 for path in tmp_path.glob(".out.jsonl.*.tmp")) or process.poll())
    result = cli.interrupt(process, number)
    assert result.code == 128 + number, result
    assert "interrupted" in result.err
    assert "Traceback" not in result.err
    kept = cli.read("out.jsonl.partial")
    assert [row["id"] for row in kept] == [*range(len(kept))]
    assert 0 < len(kept) < 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl.partial"]


def test_memory_is_bounded_by_rows_in_flight_not_by_the_file(cli):
    """A reader that ran ahead of the engine would take the whole pipe in."""
    process = cli.start("run", "-", "-", *SIM, "--set", "fault=hang", "--concurrency", "4", stdin=subprocess.PIPE)
    line = (json.dumps({"prompt": "x" * 1000}) + "\n") * 100
    import os
    import select

    os.set_blocking(process.stdin.fileno(), False)
    taken = 0
    # A pipe holds 65,536 bytes; beyond that the command is up and reads.
    while select.select([], [process.stdin.fileno()], [], 1.5 if taken > 70_000 else 60)[1]:
        taken += os.write(process.stdin.fileno(), line.encode())
        assert taken < 20_000_000
    assert cli.interrupt(process).code == 130


def test_no_file_is_lost_unless_told_to(cli):
    cli.write("in.jsonl", [{"prompt": "a"}])
    assert cli.run("run", "in.jsonl", "out.jsonl", *SIM).code == 0
    again = cli.run("run", "in.jsonl", "out.jsonl", *SIM)
    assert again.code == 2
    assert "OUTPUT out.jsonl exists; name another file, or replace it with --overwrite" in again.err
    assert cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--overwrite").code == 0
    same = cli.run("run", "in.jsonl", "in.jsonl", *SIM, "--overwrite")
    assert same.code == 2
    assert "is the input" in same.err
    assert cli.read("in.jsonl") == [{"prompt": "a"}]


def test_a_run_in_which_every_row_failed_says_so_by_its_exit_code(cli):
    cli.write("in.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--sampling", "repetition_penalty=2")
    assert result.code == 1
    assert "2 rows in = 0 ok + 2 failed" in result.err
    assert len(cli.read("out.jsonl")) == 2
