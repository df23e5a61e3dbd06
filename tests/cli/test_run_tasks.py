"""Batches that embed, classify and score, by command and by job file."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SIM = ("--engine", "sim")


def test_embeddings_come_beside_the_columns_and_errors(cli):
    rows = [{"id": 0, "prompt": "a cat"}, {"id": 1}, {"id": 2, "prompt": "b", "sampling_params": {"n": 2}}]
    cli.write("in.jsonl", rows)
    result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--task", "embed", "--dimensions", "4")
    assert result.code == 0, result
    out = cli.read("out.jsonl")
    assert len(out[0]["embedding"]) == 4
    assert set(out[0]) == {"id", "prompt", "embedding", "num_input_tokens", "usage", "error"}
    assert (out[0]["num_input_tokens"], out[0]["usage"]["prompt_tokens"], out[0]["error"]) == (2, 2, None)
    assert [row["error"] and row["error"]["param"] for row in out] == [None, "messages", "sampling_params"]
    assert out[1]["embedding"] is None
    assert "3 rows in = 1 ok + 2 failed" in result.err


def test_labels_and_scores_are_written_to_parquet_by_a_job_file(cli):
    cli.write("in.jsonl", [{"text": "a positive day"}, {"text": "a negative day"}])
    job = "input: in.jsonl\noutput: out.parquet\nengine: sim\ntask: classify\ncolumns: {prompt: text}\n"
    (cli.folder / "job.yaml").write_text(job, encoding="utf-8")
    result = cli.run("run", "job.yaml")
    assert result.code == 0, result
    table = pq.read_table(cli.folder / "out.parquet")
    assert table.column("predicted_label").to_pylist() == ["positive", "negative"]
    assert table.schema.field("label_probabilities").type == pa.list_(pa.float32())
    assert "generated_text" not in table.column_names

    pq.write_table(
        pa.table({"query": ["a cat"] * 2, "texts": [["a cat", "a dog"], ["dogs"]]}), cli.folder / "in.parquet"
    )
    result = cli.run("run", "in.parquet", "scores.parquet", *SIM, "--task", "score")
    assert result.code == 0, result
    scores = pq.read_table(cli.folder / "scores.parquet").column("scores").to_pylist()
    assert [len(row) for row in scores] == [2, 1]
    assert scores[0][0] == pytest.approx(1.0)


def test_a_run_goes_on_from_its_journal(cli):
    cli.write("in.jsonl", [{"query": "a", "texts": [f"text {i}"]} for i in range(5)])
    command = ("run", "in.jsonl", "out.jsonl", *SIM, "--task", "score", "--journal", "kept", "--overwrite")
    assert cli.run(*command).code == 0
    first = cli.read("out.jsonl")
    result = cli.run(*command)
    assert "5 ok (5 replayed)" in result.err
    assert cli.read("out.jsonl") == first


def test_what_does_not_go_with_a_task_is_refused_before_an_engine_starts(cli):
    cli.write("in.jsonl", [{"prompt": "a"}])
    for given, said in (
        (("--task", "embed", "--sampling", "n=2"), "sampling is for the task 'generate'"),
        (("--dimensions", "3"), "dimensions are for the task 'embed'"),
        (("--task", "rank"), "rank"),
    ):
        result = cli.run("run", "in.jsonl", "out.jsonl", *SIM, *given)
        assert result.code == 2, result
        assert said in result.err
    result = cli.run(
        "run",
        "in.jsonl",
        "out.jsonl",
        *SIM,
        "--task",
        "embed",
        "--set",
        'unsupported=["embeds/1"]',
        "--on-error",
        "raise",
    )
    assert result.code != 0
    assert "makes no embeddings" in result.err
