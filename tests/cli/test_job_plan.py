"""``trunnion run --explain``: everything is checked, nothing runs."""

import json

import pytest

from trunnion import engine_spec
from trunnion.errors import ConfigError
from trunnion.rows import RowColumns, RowOptions
from trunnion_batch.job_file import JobFile, JobModel
from trunnion_cli.job_plan import job_plan
from trunnion_cli.ray_batch import cpus_taken, processor_config, room_line


@pytest.fixture
def source(cli):
    cli.write("in.jsonl", [{"prompt": f"row {number}", "text": "x" * 1000} for number in range(1200)])
    return "in.jsonl"


def test_the_plan_is_printed_and_nothing_is_written(cli, source):
    result = cli.run(
        "run", source, "out.jsonl", "--engine", "sim", "--concurrency", "100", "--journal", "j", "--explain"
    )
    assert result.code == 0, result
    assert "1200 rows (" in result.out
    assert "engine sim: one, in this process, of 1 CPU" in result.out
    assert "100 rows in flight, 564 held at most: about 1." in result.out
    assert "answers are kept in j" in result.out
    assert sorted(path.name for path in cli.folder.iterdir()) == ["in.jsonl"]


def test_what_is_wrong_is_said_there_too(cli, source):
    assert (
        "no setting" in cli.run("run", source, "out.jsonl", "--engine", "sim", "--set", "nonsense=1", "--explain").err
    )


def test_replicas_and_what_they_hold_are_those_of_the_processor(cli, source):
    result = cli.run("run", source, "out.jsonl", "--engine", "sim", "--ray", "--replicas", "3", "--explain")
    assert "3 replica(s) of 1 CPU, each 16 x 128 rows at once" in result.out, result
    assert "about " in result.out
    assert "Ray: 4 CPUs are taken, one of them for reading" in result.out


@pytest.mark.parametrize(
    ("address", "cores", "said"),
    [
        ("", 8, "it is started here with 8 of this machine"),
        ("", 2, "it is started here with 4 logical ones on the 2 of this machine"),
        ("ray://there", 2, "from the cluster of RAY_ADDRESS; it must have them, or grow"),
    ],
)
def test_the_cpus_that_replicas_take_are_told(monkeypatch, address, cores, said):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert said in room_line(3.5)


def test_the_cpus_of_all_replicas_of_all_models_are_counted():
    given = JobFile(input="i.jsonl", output="o.jsonl", replicas=2, models={"judge": JobModel(replicas=3)})
    further = {"judge": (engine_spec("sim", config={"worker_cpus": 2}), RowOptions())}
    assert cpus_taken(given, engine_spec("sim"), further) == 1 + 2 + 6


def planned(tmp_path, spec=None, rows='{"prompt": "a"}\n' * 3, **given):
    from trunnion_batch.row_input import RowInput

    (tmp_path / "in.jsonl").write_text(rows)
    path = str(tmp_path / "in.jsonl")
    job = JobFile(input=path, output="out.jsonl", **given)
    options = RowOptions(columns=RowColumns(**job.columns), task=job.task)
    return "\n".join(job_plan(job, spec or engine_spec("sim"), {}, RowInput(path), options))


def test_each_setting_is_told(tmp_path):
    assert "a failed row is written with its error" in planned(tmp_path)
    assert "ends the run" in planned(tmp_path, on_error="raise")
    assert "more than 10% of them end the run" in planned(tmp_path, max_error_rate=0.1)
    assert "replaced, 2 times in a row" in planned(tmp_path, recovery={"max_engine_restarts": 2})
    assert "100 rows in a row that fail because it cannot be reached" in planned(tmp_path)
    assert "cannot be reached" not in planned(tmp_path, recovery={"max_unreachable_rows": None})
    assert "nothing is kept" in planned(tmp_path)
    assert "twice the rows" in planned(tmp_path)
    assert "in flight: twice" not in planned(tmp_path, prefix_window=10)


@pytest.mark.parametrize(("window", "size", "blocks"), [(1, 1, 1), (100, 100, 1), (300, 128, 3)])
def test_on_ray_a_replica_holds_the_prefix_window(window, size, blocks):
    given = JobFile(input="in.jsonl", output="out.jsonl", prefix_window=window)
    config = processor_config(given, engine_spec("sim"), {}, RowOptions())
    assert (config.prefix_order, config.batch_size, config.calls) == (True, size, blocks)


def test_what_ends_a_wait_is_told(tmp_path):
    assert "a request that hangs is waited for for ever: --stall-timeout" in planned(tmp_path)
    assert "for 30 s is replaced" in planned(tmp_path, recovery={"stall_timeout": 30})


def test_memory_is_told_on_this_machine_too(tmp_path):
    assert "with 256 rows in flight, 1344 held at most: about 2" in planned(tmp_path)


def test_a_journal_and_a_cache_are_looked_at_and_not_made(tmp_path):
    from trunnion_batch.journal import Journal

    new, old = tmp_path / "new" / "journal", tmp_path / "old"
    journal = Journal(str(old))
    journal.add_packed(b"k" * 16, b"answer")
    journal.close()
    plan = planned(tmp_path, journal=str(new), cache=str(old))
    assert f"journal {new}: nothing is there yet" in plan
    assert f"cache {old}: 1 answers are there" in plan
    assert f"rows that are greedy or have a seed share answers through {old}" in plan
    assert not new.parent.exists()
    assert f"all rows share answers through {old}" in planned(tmp_path, cache=str(old), share="all")
    held = Journal(str(old))
    try:
        with pytest.raises(ConfigError, match="in use by another job"):
            planned(tmp_path, journal=str(old))
    finally:
        held.close()
    assert "nothing is there yet" in planned(tmp_path, journal="memory://here")


@pytest.mark.parametrize("where", ["journal", "cache"])
@pytest.mark.parametrize(("uri", "said"), [("foo://x", "foo"), ("{}/in.jsonl/x", "in.jsonl is no folder")])
def test_a_place_that_cannot_be_opened_is_refused(tmp_path, where, uri, said):
    with pytest.raises(ConfigError, match=said) as caught:
        planned(tmp_path, **{where: uri.format(tmp_path)})
    assert caught.value.param == "journal"


def test_columns_that_the_first_rows_do_not_have(tmp_path):
    assert "none of the first" not in planned(tmp_path)
    plan = planned(tmp_path, columns={"model": "who"})
    assert "none of the first 3 rows has the column who (columns.model); they have prompt" in plan
    with pytest.raises(
        ConfigError, match=r"has a column messages or text or prompt_token_ids, so they would all fail; they have"
    ):
        planned(tmp_path, columns={"prompt": "text"})
    with pytest.raises(ConfigError, match="has a column query,") as caught:
        planned(tmp_path, task="score")
    assert caught.value.param == "columns.query"
    both = '{"query": "a", "texts": "b"}'
    assert "1 rows" in planned(tmp_path, rows=both, task="score")


def test_templates_are_tried_on_the_first_rows(tmp_path):
    land = {"prompt": "{{ land }}"}
    with pytest.raises(ConfigError, match=r"preprocess.prompt: the row has no column 'land'") as caught:
        planned(tmp_path, preprocess=land)
    assert caught.value.param == "preprocess.prompt"
    with pytest.raises(ConfigError, match=r"preprocess.messages\[0\].content: 'land' is undefined"):
        planned(tmp_path, preprocess={"messages": [{"role": "user", "content": "of {{ land }}?"}]})
    rows = "".join(json.dumps(row) + "\n" for row in ({"land": "France"}, {"city": "Rome"}))
    plan = planned(tmp_path, rows=rows, preprocess=land, postprocess={"answer": "{{ generated_text | trim }}"})
    assert "preprocess fails for 1 of the first 2 rows: preprocess.prompt: the row has no column 'land'" in plan
    with pytest.raises(ConfigError, match=r"postprocess.a.b: 'generated' is undefined") as caught:
        planned(tmp_path, postprocess={"a": {"b": "so: {{ generated }}"}})
    assert caught.value.param == "postprocess.a.b"
    for used in ("usage.total_tokens", "generated_tokens[0]", "reasoning.strip()", "finish_reason", "prompt"):
        planned(tmp_path, postprocess={"a": f"<{{{{ {used} }}}}>"})


def test_where_an_endpoint_is_asked(tmp_path):
    urls = ["http://one/v1", "http://two/v1"]
    spec = engine_spec("openai", "m", config={"base_url": urls, "weights": [3, 1]})
    assert "it asks http://one/v1 (75%), http://two/v1 (25%)" in planned(tmp_path, spec)
    assert "it asks http://one/v1, http://two/v1 alike" in planned(
        tmp_path, engine_spec("openai", "m", {"base_url": urls})
    )
    assert "it asks https://api.openai.com/v1\n" in planned(tmp_path, engine_spec("openai", "m"))
    assert "it asks" not in planned(tmp_path)
    assert "engine openai; it asks http://one/v1" in planned(tmp_path, spec, ray=True)
