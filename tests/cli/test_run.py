"""Batches in process: every row is accounted for, order is kept, output is whole or called partial."""

import json
import signal
import subprocess
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_lines import wait_for_line

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
    assert "302 rows in = 297 ok + 5 failed;" in result.err
    assert "4 invalid_argument, such as row 8: the row has no prompt" in result.err
    assert "1 adapter_not_found, such as row 11: " in result.err
    assert "written to out.jsonl" in result.err
    summary = json.loads((cli.folder / "out.summary.json").read_text())
    assert (summary["rows_in"], summary["ok"], summary["failed"], summary["partial"]) == (302, 297, 5, False)
    assert summary["completion_tokens"] == sum(row["num_generated_tokens"] for row in out)
    assert summary["prompt_tokens"] == sum(row["num_input_tokens"] for row in out)
    assert [(error["code"], error["count"], error["example"]["row"]) for error in summary["errors"]] == [
        ("invalid_argument", 4, 8), ("adapter_not_found", 1, 11),
    ]  # fmt: skip


def test_raise_ends_the_run_with_the_rows_error_and_keeps_what_there_is(cli, tmp_path):
    cli.write("in.jsonl", [{"prompt": "a"}, {"prompt": "b", "sampling_params": {"n": 0}}, {"prompt": "c"}])
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--on-error", "raise", "--concurrency", "1")
    assert result.code == 2, result
    assert "error: sampling_params.n must be 1 or more" in result.err
    assert "1 rows are kept in" in result.err
    assert not (tmp_path / "out.jsonl").exists()
    assert len(cli.read("out.jsonl.partial")) == 1


def test_a_row_that_kills_engines_is_set_apart(cli):
    cli.write("in.jsonl", [{"prompt": f"row {i}"} for i in range(50)])
    faults = ("--set", "fault=crash", "--set", "fault_marker=row 30")
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, *faults)
    assert result.code == 0, result
    out = cli.read("out.jsonl")
    assert [index for index, row in enumerate(out) if row["error"]] == [30]
    assert out[30]["error"]["code"] == "row_quarantined"
    assert json.loads((cli.folder / "out.summary.json").read_text())["engine_restarts"] == 3


def test_an_engine_that_never_lives_ends_the_run(cli, tmp_path):
    cli.write("in.jsonl", [{"prompt": f"row {i}"} for i in range(50)])
    faults = ("--set", 'faults=[{"kind": "crash_node", "at": 0.05}]', "--set", "tpot=0.1", "--max-restarts", "1")
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, *faults)
    assert result.code == 1
    assert "error: the engine died or failed to start 2 times without an answered row in between" in result.err
    assert not (tmp_path / "out.jsonl").exists()


def test_an_engine_that_dies_of_every_row_ends_the_run_and_what_is_set_apart_is_kept(cli, tmp_path):
    cli.write("in.jsonl", [{"prompt": f"row {i}"} for i in range(200)])
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--set", "fault=crash", "--max-restarts", "3")
    assert result.code == 1
    assert "error: the engine died or failed to start 4 times without an answered row in between" in result.err
    assert result.err.count("WARNING") <= 3
    assert not (tmp_path / "out.jsonl").exists()
    assert {row["error"]["code"] for row in cli.read("out.jsonl.partial")} == {"row_quarantined"}


def test_a_run_that_was_killed_goes_on_from_its_journal(cli, until, tmp_path):
    rows = [{"id": i, "prompt": f"row {i % 40}"} for i in range(200)]  # many of them equal
    cli.write("in.jsonl", rows)
    command = ("run", "in.jsonl", "out.jsonl", *SIM, "--set", "tpot=0.02", "--sampling", "max_tokens=4")
    command += ("--concurrency", "8", "--journal", "journal")
    process = cli.start(*command)
    until(lambda: sum(path.stat().st_size for path in tmp_path.glob("journal/*.rows")) > 2000 or process.poll())
    cli.interrupt(process, signal.SIGKILL)
    assert not (tmp_path / "out.jsonl").exists()
    result = cli.run(*command)
    assert result.code == 0, result
    assert "answers of earlier runs are in the journal" in result.err
    assert [row["id"] for row in cli.read("out.jsonl")] == [*range(200)]
    summary = json.loads((tmp_path / "out.summary.json").read_text())
    assert 0 < summary["replayed"] < 200
    undisturbed = cli.run("run", "in.jsonl", "whole.jsonl", *SIM, "--sampling", "max_tokens=4")
    assert undisturbed.code == 0
    assert cli.read("out.jsonl") == cli.read("whole.jsonl")
    again = cli.run(*command, "--overwrite")
    assert "(200 replayed)" in again.err
    changed = cli.run(*command, "--overwrite", "--sampling", "max_tokens=5")
    assert "replayed" not in changed.err


def test_ctrl_c_once_finishes_what_is_in_flight_and_says_how_to_go_on(cli, until, tmp_path):
    cli.write("in.jsonl", [{"id": i, "prompt": "x"} for i in range(1000)])
    command = ("run", "in.jsonl", "out.jsonl", *SIM, "--set", "ttft=0.2", "--concurrency", "8", "--journal", "journal")
    process = cli.start(*command)
    until(lambda: any(path.stat().st_size for path in tmp_path.glob("journal/*.rows")) or process.poll())
    result = cli.interrupt(process)
    assert result.code == 130, result
    assert "rows in flight are finished first" in result.err
    assert "to go on, run the same command again: the journal journal has what was answered" in result.err
    kept = cli.read("out.jsonl.partial")
    assert 0 < len(kept) < 1000
    assert [row["id"] for row in kept] == [*range(len(kept))]
    summary = json.loads((tmp_path / "out.summary.json").read_text())
    assert (summary["partial"], summary["ok"], summary["rows_in"]) == (True, len(kept), len(kept))
    assert summary["ended_by"] == {"code": "interrupted", "message": "the run was stopped by a signal"}
    result = cli.run(*command, "--set", "ttft=0")
    assert f"({len(kept)} replayed)" in result.err
    assert not (tmp_path / "out.jsonl.partial").exists()  # its rows are in the output


def test_rows_that_are_the_same_are_asked_once_where_that_is_no_loss(cli, tmp_path):
    cli.write("in.jsonl", [{"prompt": f"row {i % 5}", "sampling_params": {"temperature": i % 2}} for i in range(100)])

    def replayed(name, *options):
        result = cli.run("run", "in.jsonl", f"{name}.jsonl", *SIM, *options)
        assert result.code == 0, result
        return json.loads((tmp_path / f"{name}.summary.json").read_text())["replayed"]

    assert replayed("plain") == 0
    assert replayed("dedup", "--deduplicate") == 45
    assert replayed("all", "--deduplicate", "--share", "all") == 90
    assert replayed("first", "--cache", "cache") >= 0
    assert replayed("second", "--cache", "cache") == 50
    assert cli.read("dedup.jsonl") == cli.read("plain.jsonl") == cli.read("second.jsonl")


def test_rows_that_share_a_prefix_go_close_together(cli, tmp_path):
    heads = [" ".join(f"g{group}w{word}" for word in range(36)) for group in range(30)]
    prompts = [f"{heads[(7 * row) % 30]} {row}" for row in range(300)]
    cli.write("in.jsonl", [{"prompt": prompt} for prompt in prompts])
    cache = ("--set", "block_size=4", "--set", "num_gpu_blocks_override=60", "--set", "step.base=0.0001")
    command = ("--set", "max_num_seqs=4", "--sampling", "max_tokens=1", "--concurrency", "4")

    def cached(name, *options):
        result = cli.run("run", "in.jsonl", f"{name}.jsonl", *SIM, *cache, *command, *options)
        assert result.code == 0, result
        assert [row["prompt"] for row in cli.read(f"{name}.jsonl")] == prompts
        return json.loads((tmp_path / f"{name}.summary.json").read_text())["cached_tokens"]

    assert cached("window", "--prefix-window", "300") > 2 * cached("plain")


def test_dead_letters_can_be_run_again(cli):
    cli.write("in.jsonl", [{"id": i, "prompt": f"row {i}", "sampling_params": {"n": i % 3}} for i in range(9)])
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--dead-letters", "dead.jsonl")
    assert "3 failed rows are in dead.jsonl" in result.err
    dead = cli.read("dead.jsonl")
    assert [row["id"] for row in dead] == [0, 3, 6]
    assert {row["error"]["param"] for row in dead} == {"sampling_params.n"}
    for row in dead:
        row["sampling_params"] = None
    cli.write("mended.jsonl", dead)
    assert cli.run("run", "mended.jsonl", "rest.jsonl", *SIM).code == 0
    assert [row["error"] for row in cli.read("rest.jsonl")] == [None] * 3


def test_too_many_errors_end_the_run_and_keep_what_is_done(cli):
    rows = [{"prompt": f"row {i}", "sampling_params": {"n": 0 if i % 2 else 1}} for i in range(1000)]
    cli.write("in.jsonl", rows)
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--max-error-rate", "0.3")
    assert result.code == 1
    assert "more than max_error_rate=0.3 allows" in result.err
    assert len(cli.read("out.jsonl.partial")) == 100
    assert cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--max-error-rate", "0.6").code == 0


def test_a_row_has_its_time_and_its_retries(cli):
    cli.write("in.jsonl", [{"prompt": "slow"}, {"prompt": "other"}])
    faults = ("--set", "fault=hang", "--set", "fault_marker=slow", "--row-timeout", "0.5")
    assert cli.run("run", "in.jsonl", "out.jsonl", *SIM, *faults).code == 0
    assert [row["error"] and row["error"]["code"] for row in cli.read("out.jsonl")] == ["deadline_exceeded", None]
    refuses = ("--set", 'faults=[{"kind": "refuse", "requests": [0, 1]}]', "--concurrency", "1", "--overwrite")
    cli.write("in.jsonl", [{"prompt": "a"}])
    assert cli.run("run", "in.jsonl", "out.jsonl", *SIM, *refuses, "--retries", "1").code == 1
    assert cli.run("run", "in.jsonl", "out.jsonl", *SIM, *refuses, "--retries", "2").code == 0


def test_a_stalled_engine_is_replaced(cli):
    cli.write("in.jsonl", [{"prompt": "slow"}])
    faults = ("--set", "fault=hang", "--stall-timeout", "0.4")
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, *faults)
    assert cli.read("out.jsonl")[0]["error"]["code"] == "row_quarantined", result


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
    assert "column 'id' of row 2 is {\"a\": 1}, and the rows before hold int64; name an OUTPUT" in result.err
    assert len(cli.read("odd.partial.jsonl")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl", "odd.jsonl", "odd.partial.jsonl", "odd.summary.json", "out.parquet", "out.summary.json",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "run-batch"])
def test_ctrl_c_after_the_last_row_was_begun_leaves_nothing_undone(cli, kind):
    body = {"model": "sim", "prompt": "x", "max_tokens": 2}
    lines = [{"custom_id": f"{i}", "url": "/v1/completions", "body": body} for i in range(20)]
    cli.write("in.jsonl", lines if kind == "run-batch" else [{"id": i, "prompt": "x"} for i in range(20)])
    files = (
        ("-i", "in.jsonl", "-o", "out.jsonl", "--engine", "sim")
        if kind == "run-batch"
        else ("in.jsonl", "out.jsonl", *SIM)
    )
    process = cli.start(kind, *files, "--set", "ttft=12", "--concurrency", "30")
    wait_for_line(process.stderr, "20 in flight")
    result = cli.interrupt(process)
    assert result.code == 0, result
    assert "20 rows in flight are finished first" in result.err
    assert "20 rows in = 20 ok" in result.err
    assert len(cli.read("out.jsonl")) == 20
    assert json.loads((cli.folder / "out.summary.json").read_text())["partial"] is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_keeps_the_rows_and_leaves_no_process(cli, tmp_path, until, number):
    cli.write("in.jsonl", [{"id": i, "prompt": "x"} for i in range(1000)])
    process = cli.start("run", "in.jsonl", "out.jsonl", *SIM, "--set", "ttft=0.05", "--concurrency", "8")
    until(lambda: any(path.stat().st_size > 0 for path in tmp_path.glob(".out.jsonl.*.tmp")) or process.poll())
    result = cli.interrupt(process, number)
    assert result.code == 128 + number, result
    assert ("interrupted" if number == signal.SIGTERM else "rows in flight are finished first") in result.err
    assert "Traceback" not in result.err
    kept = cli.read("out.jsonl.partial")
    assert [row["id"] for row in kept] == [*range(len(kept))]
    assert 0 < len(kept) < 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl.partial", "out.summary.json"]


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
    os.killpg(process.pid, signal.SIGINT)  # asks for the rows in flight, which hang
    assert "rows in flight are finished first" in process.stderr.readline()
    time.sleep(0.6)
    result = cli.interrupt(process)
    assert result.code == 130
    assert "interrupted" in result.err


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--summary", "in.jsonl"), "--summary and INPUT are both in.jsonl"),
        (("--summary", "out.jsonl"), "--summary and OUTPUT are both out.jsonl"),
        (("--summary", "other.jsonl"), "--summary other.jsonl exists and is no account"),
        (("--summary", "no/where.json"), "--summary no/where.json cannot be written: its folder does not exist"),
        (("--summary", "."), "--summary . is a folder"),
        (("--dead-letters", "out.jsonl"), "--dead-letters and OUTPUT are both out.jsonl"),
        (("--dead-letters", "-"), "--dead-letters goes to a file, not to stdout"),
        (("--journal", "j", "--cache", "./j"), "--cache and --journal are both ./j"),
    ],
)
def test_files_that_would_be_lost_are_refused_before_anything_runs(cli, options, said):
    cli.write("in.jsonl", [{"prompt": "a"}])
    cli.write("other.jsonl", [{"prompt": "b"}])
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, *options)
    assert result.code == 2, result
    assert said in " ".join(result.err.split())
    assert sorted(path.name for path in cli.folder.iterdir()) == ["in.jsonl", "other.jsonl"]


def test_of_two_runs_with_one_output_none_loses_its_rows(cli, tmp_path, until):
    cli.write("in.jsonl", [{"prompt": "slow"}])
    slow = cli.start("run", "in.jsonl", "out.jsonl", *SIM, "--set", "ttft=12", "--dead-letters", "dead.jsonl")
    until(lambda: any(tmp_path.glob(".out.jsonl.*.tmp")) or process_ended(slow))
    cli.write("quick.jsonl", [{"prompt": "quick"}])
    assert cli.run("run", "quick.jsonl", "out.jsonl", *SIM).code == 0
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 1, err
    assert "out.jsonl was made by another run meanwhile and is left as it is: these rows are in out.2.jsonl" in err
    assert [cli.read(name)[0]["prompt"] for name in ("out.jsonl", "out.2.jsonl")] == ["quick", "slow"]


def process_ended(process):
    return process.poll() is not None


def test_how_to_go_on_is_said_where_there_is_something_to_go_on_from(cli):
    again = "run the same command again"
    cli.write("in.jsonl", [{"prompt": "a"}, {"prompt": "b", "sampling_params": {"n": 0}}])
    (cli.folder / "file").write_text("")
    command = ("run", "in.jsonl", "out.jsonl", *SIM, "--concurrency", "1", "--on-error", "raise")
    result = cli.run(*command, "--journal", "file")
    assert "cannot be opened" in result.err
    assert again not in result.err
    result = cli.run(*command, "--journal", "j")
    assert again not in result.err
    assert "to go on, mend that row or leave --on-error raise out, and run the command again" in result.err
    none = cli.write("none.jsonl", [{"prompt": None}])
    assert "to go on" not in cli.run("run", none, "out.jsonl", *SIM, "--on-error", "raise", "--journal", "k").err
