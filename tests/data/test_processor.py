"""Processors on a real Ray, with the simulated engine."""

import os
import time
from pathlib import Path

import psutil
import pytest
from data_sim import sim_config

from trunnion import Bundle
from trunnion.errors import InternalError, InvalidArgument
from trunnion.rows import OUTPUT_COLUMNS
from trunnion_ray.data import build_processor, find_error

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:Use 'expr'")]


@pytest.fixture(scope="module")
def data(ray_session):
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    return ray_session.data


def gone(pids, seconds=15.0):
    """Tell whether all processes end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.1)
    return False


def with_pid(row):
    return {"id": row["id"], "pid": os.getpid()}


def test_a_dataset_is_answered_row_by_row_beside_other_steps(data, tmp_path):
    first = build_processor(sim_config(batch_size=16), preprocess=lambda row: {"prompt": f"number {row['id']}"})
    second = build_processor(
        sim_config(on_error="raise"),
        preprocess=lambda row: {"messages": [{"role": "user", "content": row["generated_text"]}]},
        postprocess=lambda row: {"id": row["id"], "again": row["generated_text"]},
    )
    answered = first(data.range(100).map(lambda row: {**row, "odd": row["id"] % 2}))
    assert set(answered.schema().names) == {"id", "odd", "prompt", *OUTPUT_COLUMNS}
    chained = second(answered.filter(lambda row: row["error"] is None and row["odd"] == 1))
    chained.write_parquet(str(tmp_path))
    rows = data.read_parquet(str(tmp_path)).take_all()
    assert sorted(row["id"] for row in rows) == list(range(1, 100, 2))
    assert all(len(row["again"].split()) == 4 for row in rows)


def test_blocks_with_errors_and_without_go_into_one_parquet_file(data, tmp_path):
    items = [{"id": i, "prompt": None if i % 7 == 0 else f"p{i}"} for i in range(40)]
    dataset = build_processor(sim_config(batch_size=3))(data.from_items(items))
    dataset.repartition(1).write_parquet(str(tmp_path))
    rows = data.read_parquet(str(tmp_path)).take_all()
    assert len(rows) == 40
    assert sorted(row["id"] for row in rows if row["error"]) == [0, 7, 14, 21, 28, 35]
    assert {row["error"]["type"] for row in rows if row["error"]} == {"InvalidArgument"}


def test_nothing_runs_before_it_is_asked_for_and_a_limit_saves_work(data, tmp_path):
    def mark(row):
        (tmp_path / str(row["id"])).touch()
        return {"prompt": "a"}

    dataset = build_processor(sim_config(), preprocess=mark)(data.range(1000))
    assert not list(tmp_path.iterdir())
    assert len(dataset.take(1)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def sizes(dataset):
    counted = dataset.map_batches(lambda table: {"rows": [len(table["id"])]}, batch_size=None, num_cpus=0.5)
    return [row["rows"] for row in counted.take_all()]


def test_large_blocks_are_split_and_small_ones_joined(data):
    processor = build_processor(sim_config(batch_size=50), preprocess=lambda _: {"prompt": "a"})
    for blocks in (1, 100):
        assert sizes(processor(data.range(200, override_num_blocks=blocks))) == [50] * 4
    whole = build_processor(sim_config(batch_size=50, split_blocks=False), preprocess=lambda _: {"prompt": "a"})
    assert sizes(whole(data.range(200, override_num_blocks=1))) == [200]


@pytest.mark.parametrize("concurrency", [2, (1, 2)])
def test_replicas(data, concurrency):
    config = sim_config(concurrency=concurrency, batch_size=4, max_concurrent_batches=1, config={"ttft": 0.2})
    processor = build_processor(config, preprocess=lambda _: {"prompt": "a"}, postprocess=with_pid)
    rows = processor(data.range(80)).take_all()
    assert sorted(row["id"] for row in rows) == list(range(80))
    pids = {row["pid"] for row in rows}
    assert len(pids) == 2 if concurrency == 2 else len(pids) in (1, 2)
    assert gone(pids)


def test_no_rows_and_empty_blocks(data):
    processor = build_processor(sim_config(), preprocess=lambda _: {"prompt": "a"}, postprocess=with_pid)
    assert processor(data.range(20).filter(lambda _: False)).take_all() == []
    some = data.range(100, override_num_blocks=10).filter(lambda row: row["id"] == 57)
    assert [row["id"] for row in processor(some).take_all()] == [57]


def test_columns_of_mixed_types_pass_through(data):
    items = [{"prompt": "a", "x": 1}, {"prompt": "b", "x": "two"}, {"prompt": "c", "x": None}, {"prompt": "d", "x": []}]
    rows = build_processor(sim_config())(data.from_items(items, override_num_blocks=1)).take_all()
    assert [row["x"] for row in rows] == [1, "two", None, []]
    assert [row["error"] for row in rows] == [None] * 4


def test_the_first_error_ends_the_job_and_keeps_its_type(data, tmp_path):
    def preprocess(row):
        Path(tmp_path / "pid").write_text(str(os.getpid()))
        return {"prompt": None if row["id"] == 5 else "a"}

    dataset = build_processor(sim_config(on_error="raise"), preprocess=preprocess)(data.range(10))
    with pytest.raises(InvalidArgument) as caught:
        dataset.materialize()
    error = find_error(caught.value)
    assert (type(error), error.param, error.code) == (InvalidArgument, "messages", "invalid_argument")
    assert gone([int((tmp_path / "pid").read_text())])


def test_an_engine_that_cannot_start_ends_the_job_at_once(data):
    config = sim_config(config={"tokenizer": "/no/such/tokenizer"})
    dataset = build_processor(config, preprocess=lambda _: {"prompt": "a"})(data.range(10))
    began = time.monotonic()
    with pytest.raises(InternalError, match="did not start"):
        dataset.materialize()
    assert time.monotonic() - began < 60


def test_functions_can_run_in_tasks_of_their_own(data):
    def preprocess(row):
        return {"prompt": "a" * (6 // row["id"]), "before": os.getpid()}

    processor = build_processor(
        sim_config(),
        preprocess=preprocess,
        postprocess=lambda row: {"id": row["id"], "before": row["before"], "after": 1 // (row["id"] - 1)},
        preprocess_map_kwargs={"num_cpus": 0.5},
        postprocess_map_kwargs={"num_cpus": 0.5},
    )
    rows = sorted(processor(data.range(3)).take_all(), key=lambda row: row["id"])
    assert [row["error"] and row["error"]["code"] for row in rows] == ["preprocess_failed", "postprocess_failed", None]
    assert rows[2]["after"] == 1
    assert "__trunnion_error" not in rows[0]


def test_a_placement_group_goes_with_its_actor(data, ray_session):
    config = sim_config(bundles=(Bundle(cpu=1), Bundle(cpu=1)), strategy="PACK")
    processor = build_processor(config, preprocess=lambda _: {"prompt": "a"}, postprocess=with_pid)
    rows = processor(data.range(20)).take_all()
    assert len(rows) == 20
    assert gone({row["pid"] for row in rows})
    deadline = time.monotonic() + 15
    while ray_session.available_resources().get("CPU") != 4.0:
        assert time.monotonic() < deadline, ray_session.util.placement_group_table()
        time.sleep(0.2)
