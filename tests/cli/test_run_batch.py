"""OpenAI's batch files: a request per line in, a response per line out, and an account of every line."""

import itertools
import json
import signal
import subprocess

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

COMMAND = ("run-batch", "-i", "in.jsonl", "-o", "out.jsonl", "--engine", "sim")


def chat(custom_id, content, **fields):
    body = {"model": "sim", "messages": [{"role": "user", "content": content}], "max_tokens": 4, **fields}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def by_id(rows):
    return {row["custom_id"]: row for row in rows}


def summary(cli, name="out.summary.json"):
    return json.loads((cli.folder / name).read_text())


def test_scores_rankings_and_labels_are_answered_as_a_server_would(cli):
    cli.write("in.jsonl", [
        {"custom_id": "score", "url": "/v1/score", "body": {"text_1": "a cat", "text_2": ["a cat", "a dog"]}},
        {"custom_id": "rank", "url": "/v1/rerank", "body": {"query": "a cat", "documents": ["a dog", "a cat"]}},
        {"custom_id": "label", "url": "/v1/classify", "body": {"input": "a positive day"}},
    ])  # fmt: skip
    result = cli.run(*COMMAND)
    assert result.code == 0, result
    bodies = {name: row["response"]["body"] for name, row in by_id(cli.read("out.jsonl")).items()}
    assert [len(bodies["score"]["data"]), bodies["rank"]["results"][0]["index"]] == [2, 1]
    assert bodies["label"]["data"][0]["label"] == "positive"
    assert summary(cli)["prompt_tokens"] == sum(body["usage"]["prompt_tokens"] for body in bodies.values())


def test_an_engine_that_cannot_be_had_again_ends_a_run_of_embeddings(cli):
    cli.write("in.jsonl", [{"custom_id": "a", "url": "/v1/embeddings", "body": {"input": "a"}}])
    result = cli.run(*COMMAND, "--set", "fault=crash", "--max-restarts", "0")
    assert result.code == 1, result
    assert "error: the simulated engine crashed on demand" in result.err
    assert not (cli.folder / "out.errors.jsonl").exists()  # the row is not called failed: another run asks again


def test_chat_completions_and_embeddings_are_answered_as_a_server_would(cli):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    cli.write("in.jsonl", [
        chat("chat", "hello"),
        chat("two", "hello", n=2, logprobs=True, top_logprobs=1),
        chat("tools", "hello", tools=[tool], tool_choice="required", max_tokens=50),
        {"custom_id": "text", "url": "/v1/completions", "body": {"prompt": ["a", "b"], "max_tokens": 3}},
        {"custom_id": "vector", "url": "/v1/embeddings", "body": {"model": "sim", "input": ["a", "b"]}},
    ])  # fmt: skip
    result = cli.run(*COMMAND)
    assert result.code == 0, result
    assert "5 lines" in result.err or "5 rows in = 5 ok + 0 failed" in result.err
    rows = by_id(cli.read("out.jsonl"))
    assert {row["response"]["status_code"] for row in rows.values()} == {200}
    assert {row["error"] for row in rows.values()} == {None}
    bodies = {name: row["response"]["body"] for name, row in rows.items()}
    assert ChatCompletion.model_validate(bodies["chat"]).choices[0].message.content
    two = ChatCompletion.model_validate(bodies["two"])
    assert len(two.choices) == 2
    assert len(two.choices[0].logprobs.content) == 4
    assert ChatCompletion.model_validate(bodies["tools"]).choices[0].message.tool_calls[0].function.name == "look"
    assert len(Completion.model_validate(bodies["text"]).choices) == 2
    vectors = CreateEmbeddingResponse.model_validate(bodies["vector"])
    assert len(vectors.data) == 2
    assert cli.read("out.errors.jsonl") == []
    assert (summary(cli)["ok"], summary(cli)["partial"]) == (5, False)
    assert summary(cli)["completion_tokens"] == sum(
        body["usage"].get("completion_tokens", 0) for body in bodies.values()
    )
    assert sorted(path.name for path in cli.folder.iterdir()) == [
        "in.jsonl", "out.errors.jsonl", "out.jsonl", "out.summary.json",
    ]  # fmt: skip


def test_what_fails_goes_to_the_error_file_with_its_name_and_number(cli):
    path = cli.write("in.jsonl", [
        chat("good", "hello"),
        chat("unknown", "hello", model="other"),
        chat("wrong", "hello", top_p=9),
        chat("good", "again"),
        {"custom_id": 5, "url": "/v1/completions", "body": {}},
        {"custom_id": "get", "method": "GET", "url": "/v1/completions", "body": {}},
        {"custom_id": "url", "url": "/v1/audio", "body": {}},
        {"custom_id": "body", "url": "/v1/completions", "body": "text"},
        chat("stream", "hello", stream=True),
    ])  # fmt: skip
    with path.open("a") as file:
        file.write('\n{"custom_id": "half\n[1]\n')
    result = cli.run(*COMMAND, "-e", "bad.jsonl")
    assert result.code == 0, result
    assert [row["custom_id"] for row in cli.read("out.jsonl")] == ["good"]
    errors = cli.read("bad.jsonl")
    answered = by_id(row for row in errors if row["response"])
    assert answered["unknown"]["response"]["status_code"] == 404
    assert "served: sim" in answered["unknown"]["response"]["body"]["error"]["message"]
    assert answered["wrong"]["response"]["body"]["error"]["param"] == "top_p"
    lines = {row["error"]["line"]: row for row in errors if row["error"]}
    assert {number: row["error"]["code"] for number, row in lines.items()} == {
        4: "duplicate_custom_id", 5: "invalid_line", 6: "invalid_line", 7: "unsupported_url", 8: "invalid_line",
        9: "invalid_line", 11: "invalid_json", 12: "invalid_line",
    }  # fmt: skip
    assert lines[4]["custom_id"] == "good"
    assert lines[9]["error"]["message"].startswith("line 9: body.stream has no place in a batch")
    assert summary(cli)["rows_in"] == 11
    assert summary(cli)["failed"] == 10
    assert "1 duplicate_custom_id, such as row 4: custom_id 'good' was used" in result.err


def test_strict_ends_at_the_first_line_that_is_no_request(cli):
    cli.write("in.jsonl", [chat("a", "hello"), {"custom_id": "b"}, chat("c", "hello")])
    result = cli.run(*COMMAND, "--strict", "--concurrency", "1")
    assert result.code == 2
    assert "error: line 2: url must be one of" in result.err
    assert not (cli.folder / "out.jsonl").exists()
    assert [row["custom_id"] for row in cli.read("out.jsonl.partial")] == ["a"]
    assert "run the same command again" not in result.err
    assert "to go on, mend that row or leave --strict out, and run the command again: the journal" in result.err


def test_a_run_that_was_killed_goes_on_without_being_told(cli, until):
    cli.write("in.jsonl", [chat(f"id-{i}", f"number {i % 9}") for i in range(200)])
    command = (*COMMAND, "--set", "tpot=0.02", "--concurrency", "8")
    process = cli.start(*command)
    until(
        lambda: (
            sum(path.stat().st_size for path in cli.folder.glob("out.jsonl.journal/*.rows")) > 5000 or process.poll()
        )
    )
    cli.interrupt(process, signal.SIGKILL)
    result = cli.run(*command)
    assert result.code == 0, result
    assert "answers of earlier runs are in the journal" in result.err
    assert sorted(row["custom_id"] for row in cli.read("out.jsonl")) == sorted(f"id-{i}" for i in range(200))
    assert 0 < summary(cli)["replayed"] < 200
    assert not (cli.folder / "out.jsonl.journal").exists()


def test_ctrl_c_once_finishes_what_is_in_flight(cli, until):
    cli.write("in.jsonl", [chat(f"id-{i}", "hello") for i in range(500)])
    command = (*COMMAND, "--set", "ttft=0.2", "--concurrency", "4")
    process = cli.start(*command)
    until(lambda: any(path.stat().st_size for path in cli.folder.glob("out.jsonl.journal/*.rows")) or process.poll())
    result = cli.interrupt(process)
    assert result.code == 130, result
    assert "to go on, run the same command again" in result.err
    kept = cli.read("out.jsonl.partial")
    assert 4 <= len(kept) < 500
    assert summary(cli)["partial"] is True
    again = cli.run(*command, "--set", "ttft=0")
    assert f"({len(kept)} replayed)" in again.err


def test_stdin_to_stdout_answers_while_the_pipe_is_open(cli):
    process = cli.start(
        "run-batch", "-i", "-", "-o", "-", "-e", "errors.jsonl", "--engine", "sim", stdin=subprocess.PIPE
    )
    for name in ("one", "two"):
        process.stdin.write(json.dumps(chat(name, "hello")) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["custom_id"] == name
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 0), err


def test_a_second_run_does_not_write_into_the_files_of_the_first(cli, until):
    cli.write("in.jsonl", [chat(f"id-{i}", "hello") for i in range(20)])
    slow = cli.start(*COMMAND, "--set", "ttft=0.5", "--concurrency", "2", "--journal", "a")
    until(lambda: (cli.folder / "out.jsonl.partial").exists() or slow.poll() is not None)
    second = cli.run(*COMMAND, "--journal", "b")
    assert second.code == 2, second
    assert "out.jsonl.partial is being written by another run" in second.err
    cli.write("out.jsonl", [])
    _, err = slow.communicate(timeout=30)
    assert slow.returncode == 1, err
    assert "out.jsonl was made by another run meanwhile and is left as it is: see out.2.jsonl" in err
    assert (len(cli.read("out.jsonl")), len(cli.read("out.2.jsonl"))) == (0, 20)


def test_lines_name_the_model_and_its_adapters(cli):
    cli.write("in.jsonl", [chat("base", "hello", model="mine"), chat("adapter", "hello", model="loud")])
    result = cli.run(*COMMAND, "--served-model-name", "mine", "--adapter", "loud")
    assert result.code == 0, result
    bodies = {name: row["response"]["body"] for name, row in by_id(cli.read("out.jsonl")).items()}
    assert bodies["adapter"]["choices"][0]["message"]["content"].isupper()
    assert bodies["base"]["model"] == "mine"


def test_a_line_that_kills_engines_is_set_apart(cli):
    cli.write("in.jsonl", [chat(f"id-{i}", f"number {i}.") for i in range(30)])
    result = cli.run(*COMMAND, "--set", "fault=crash", "--set", "fault_marker=number 7.")
    assert result.code == 0, result
    (bad,) = cli.read("out.errors.jsonl")
    assert bad["custom_id"] == "id-7"
    assert bad["response"]["body"]["error"]["code"] == "row_quarantined"
    assert len(cli.read("out.jsonl")) == 29


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-i", "no.jsonl", "-o", "out.jsonl"), "--input no.jsonl does not exist"),
        (("-i", ".", "-o", "out.jsonl"), "--input . is a folder"),
        (("-i", "in.jsonl", "-o", "in.jsonl"), "--output in.jsonl is the input"),
        (("-i", "in.jsonl", "-o", "no/out.jsonl"), "its folder does not exist"),
        (("-i", "in.jsonl", "-o", "-"), "say where failed lines go: --errors FILE"),
        (("-i", "in.jsonl", "-o", "there.jsonl"), "exists; name another file, or replace it with --overwrite"),
        (("-i", "in.jsonl", "-o", "out.jsonl", "-e", "out.jsonl"), "--errors and --output are both out.jsonl"),
        (("-i", "in.jsonl", "-o", "out.jsonl", "-e", "in.jsonl"), "--errors in.jsonl is the input"),
        (("-i", "in.jsonl", "-o", "out.jsonl", "-e", "-"), "--errors goes to a file, not to stdout (-)"),
        (("-i", "in.jsonl", "-o", "-", "-e", "-"), "--errors goes to a file, not to stdout (-)"),
        (("-i", "in.jsonl", "-o", "o.parquet"), "--output o.parquet: the name must end in .jsonl, or be - for stdout"),
        (("-i", "in.jsonl", "-o", "o.jsonl", "-e", "e.txt"), "--errors e.txt: the name must end in .jsonl"),
        (("-i", "in.jsonl", "-o", "o.jsonl", "--summary", "o.jsonl"), "--summary and --output are both o.jsonl"),
        (("-i", "in.jsonl", "-o", "o.jsonl", "--summary", "there.jsonl"), "is no account of a run"),
        (("-i", "in.jsonl", "-o", "o.jsonl", "--journal", "o.jsonl"), "--journal and --output are both o.jsonl"),
    ],
)
def test_wrong_files_are_named(cli, options, said):
    cli.write("in.jsonl", [chat("a", "hello")])
    cli.write("there.jsonl", [])
    result = cli.run("run-batch", "--engine", "sim", *options)
    assert result.code == 2
    assert said in " ".join(result.err.replace("│", " ").split())


def test_memory_does_not_grow_with_the_file(cli):
    """What is read ahead is bounded: a reader that ran ahead of the engine would take the whole pipe in."""
    import os
    import select

    process = cli.start(
        "run-batch", "-i", "-", "-o", "out.jsonl", "--engine", "sim", "--set", "fault=hang", "--concurrency", "4",
        stdin=subprocess.PIPE,
    )  # fmt: skip
    names = itertools.count()
    os.set_blocking(process.stdin.fileno(), False)
    taken = 0
    while select.select([], [process.stdin.fileno()], [], 2 if taken > 70_000 else 60)[1]:
        lines = "".join(json.dumps(chat(f"id-{next(names)}", "x" * 1000)) + "\n" for _ in range(50))
        taken += os.write(process.stdin.fileno(), lines.encode())
        assert taken < 50_000_000
    cli.interrupt(process, signal.SIGKILL)
