"""``trunnion run --explain``: everything is checked, nothing runs."""

import pytest

from trunnion import engine_spec
from trunnion.rows import RowOptions
from trunnion_batch.job_file import JobFile
from trunnion_cli.job_plan import job_plan
from trunnion_cli.ray_batch import processor_config


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


def planned(tmp_path, **given):
    from trunnion_batch.row_input import RowInput

    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 3)
    path = str(tmp_path / "in.jsonl")
    job = JobFile(input=path, output="out.jsonl", **given)
    return "\n".join(job_plan(job, engine_spec("sim"), {}, RowInput(path), RowOptions()))


def test_each_setting_is_told(tmp_path):
    assert "a failed row is written with its error" in planned(tmp_path)
    assert "ends the run" in planned(tmp_path, on_error="raise")
    assert "more than 10% of them end the run" in planned(tmp_path, max_error_rate=0.1)
    assert "replaced, 2 times in a row" in planned(tmp_path, recovery={"max_engine_restarts": 2})
    assert "nothing is kept" in planned(tmp_path)
    assert "twice the rows" in planned(tmp_path)
    assert "in flight: twice" not in planned(tmp_path, prefix_window=10)


@pytest.mark.parametrize(("window", "size", "blocks"), [(1, 1, 1), (100, 100, 1), (300, 128, 3)])
def test_on_ray_a_replica_holds_the_prefix_window(window, size, blocks):
    given = JobFile(input="in.jsonl", output="out.jsonl", prefix_window=window)
    config = processor_config(given, engine_spec("sim"), {}, RowOptions())
    assert (config.prefix_order, config.batch_size, config.calls) == (True, size, blocks)
