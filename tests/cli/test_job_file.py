"""A job in a YAML file: no Python, no long command."""

import json

import pytest

JOB = """
input: in.jsonl
output: out.jsonl
engine: sim
config: {tpot: 0.0005}
sampling: {max_tokens: 5}
preprocess:
  messages:
    - {role: user, content: "What is the capital of {{ land }}?"}
  sampling_params: {max_tokens: "{{ tokens }}"}
postprocess:
  land: "{{ land }}"
  answer: "{{ generated_text | upper }}"
  tokens: "{{ num_generated_tokens }}"
"""
ROWS = [
    {"land": "France", "tokens": 3},
    {"land": "Italy", "tokens": 4},
    {"tokens": 1},
    {"land": "Spain", "tokens": "many"},
]


@pytest.fixture
def job(cli):
    def write(text=JOB, **changes):
        import yaml

        (cli.folder / "work").mkdir(exist_ok=True)
        values = {**yaml.safe_load(text), **changes}
        (cli.folder / "work" / "job.yaml").write_text(yaml.safe_dump(values))
        cli.write("work/in.jsonl", ROWS)
        return "work/job.yaml"

    return write


def check(rows):
    assert rows[:2] == [
        {"land": "France", "answer": rows[0]["answer"], "tokens": 3, "error": None},
        {"land": "Italy", "answer": rows[1]["answer"], "tokens": 4, "error": None},
    ]
    assert rows[0]["answer"].isupper()
    assert rows[2]["error"]["param"] == "preprocess.messages[0].content"
    assert rows[2]["tokens"] == 1
    assert rows[3]["error"]["param"] == "sampling_params.max_tokens"


def test_an_answer_whose_postprocess_fails_is_kept_and_counted(cli, job):
    result = cli.run("run", job(postprocess={"answer": "{{ generated_txt }}"}))
    assert result.code == 1, result
    rows = cli.read("work/out.jsonl")
    assert [bool(row["generated_text"]) for row in rows] == [True, True, False, False]
    assert rows[0]["error"]["param"] == "postprocess.answer"
    account = json.loads((cli.folder / "work" / "out.summary.json").read_text())
    assert (account["failed"], account["completion_tokens"]) == (4, 7)


def test_a_job_needs_nothing_but_its_file(cli, job):
    result = cli.run("run", job())
    assert result.code == 0, result
    check(cli.read("work/out.jsonl"))
    assert json.loads((cli.folder / "work" / "out.summary.json").read_text())["failed"] == 2


@pytest.mark.ray
def test_a_job_runs_on_ray_as_it_is(cli, job):
    result = cli.run("run", job(ray=True), timeout=200)
    assert result.code == 0, result
    check(cli.read("work/out.jsonl"))


SEVERAL = """
input: in.jsonl
output: out.jsonl
engine: sim
sampling: {max_tokens: 5}
columns: {prompt: land}
models:
  judge: {engine: sim, config: {adapters: [strict]}, sampling: {max_tokens: 9}}
"""


@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=pytest.mark.ray)])
def test_a_job_has_several_models(cli, job, ray):
    path = job(SEVERAL, ray=ray)
    cli.write(
        "work/in.jsonl",
        [{"land": "France", "model": name} for name in (None, "judge", "judge:strict", "judge:kind", "nobody")],
    )
    result = cli.run("run", path, timeout=200)
    assert result.code == 0, result
    rows = cli.read("work/out.jsonl")
    assert [row["num_generated_tokens"] for row in rows] == [5, 9, 9, 0, 0]
    assert [row["model"] for row in rows] == [None, "judge", "judge:strict", "judge:kind", "nobody"]
    assert [row["error"] and row["error"]["code"] for row in rows[3:]] == ["adapter_not_found"] * 2
    assert rows[2]["generated_text"].isupper()
    summary = json.loads((cli.folder / "work" / "out.summary.json").read_text())
    assert (summary["rows_in"], summary["ok"], summary["failed"]) == (5, 3, 2)
    assert summary["models"]["judge"]["engine"] == "sim"


def test_a_job_has_a_journal_and_columns(cli, job):
    changes = {"preprocess": {}, "postprocess": {}, "columns": {"prompt": "land"}, "journal": "journal"}
    assert cli.run("run", job(**changes)).code == 0
    assert list((cli.folder / "work" / "journal").glob("*.rows"))
    result = cli.run("run", job(**changes), "--overwrite")
    assert "(3 replayed)" in result.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": {"judge": {"modle": "x"}}}, "models.judge.modle: there is no such setting; did you mean 'model'?"),
        ({"models": {"a:b": {"engine": "sim"}}}, "cannot name a model"),
        ({"media": {"allowed_host": ["x"]}}, "did you mean 'allowed_hosts'?"),
        ({"stall_timeout": 5}, "stall_timeout: there is no such setting; did you mean 'recovery.stall_timeout'?"),
        ({"prepocess": {}}, "prepocess: there is no such setting; did you mean 'preprocess'?"),
        ({"recovery": {"row_retry": 1}}, "recovery.row_retry: there is no such setting; did you mean 'row_retries'?"),
        ({"replicas": 0}, "replicas: Input should be greater than or equal to 1"),
        ({"columns": {"promt": "land"}}, "there is no input column 'promt'"),
        ({"preprocess": {"prompt": "{{ land"}}, "preprocess.prompt is no valid Jinja template"),
        ({"config": {"slotss": 1}}, "slotss"),
        ({"sampling": {"max_token": 1}}, "max_token"),
        ({"output": "out.csv"}, "must end in .jsonl or .parquet"),
    ],
)
def test_what_is_wrong_is_named(cli, job, changes, said):
    result = cli.run("run", job(**changes))
    assert result.code == 2, result
    assert said in result.err


def test_flags_do_not_mix_with_a_file(cli, job):
    result = cli.run("run", job(), "--engine", "sim")
    assert result.code == 2
    assert "set engine there" in " ".join(result.err.replace("│", " ").split())
    result = cli.run("run", "no.yaml")
    assert result.code == 2
    assert "the job file no.yaml cannot be read" in result.err
    (cli.folder / "bad.yaml").write_text("a: [")
    assert "is not valid YAML" in cli.run("run", "bad.yaml").err
