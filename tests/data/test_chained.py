"""One processor behind another: what failed in the first is not asked again by the second, and counts as failed."""

import pyarrow as pa
import pytest
from data_sim import sim_config

from trunnion.errors import InvalidArgument
from trunnion_ray.data import ModelConfig, build_processor, find_error
from trunnion_ray.data.outside import FAILED_BEFORE, Preprocess
from trunnion_ray.data.processor import make_processor
from trunnion_ray.data.ray_dialect import RayDialect
from trunnion_ray.data.worker import BatchWorker

ROWS = [{"id": 0, "prompt": "a"}, {"id": 1, "prompt": None}, {"id": 2, "prompt": "c"}]


def judged(row):
    return {"prompt": f"judge {row['generated_text']}"}


def verdict(row):
    return {"id": row["id"], "verdict": row["generated_text"]}


@pytest.fixture
def first(worker):
    return worker()(pa.Table.from_pylist(ROWS))


@pytest.mark.parametrize("functions", [{}, {"preprocess": judged}, {"preprocess": judged, "postprocess": verdict}])
def test_a_failed_row_passes_unasked_with_its_error(worker, first, functions):
    before = first.to_pylist()[1]["error"]
    rows = worker(**functions)(first).to_pylist()
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "invalid_argument", None]
    assert rows[1]["error"] == before
    assert rows[1].get("generated_text") is None
    assert rows[1].get("verdict") is None
    assert rows[1]["id"] == 1


def test_a_failed_row_is_asked_if_told_so(worker, first):
    rows = worker(config=sim_config(skip_failed=False), preprocess=judged)(first).to_pylist()
    assert [row["error"] for row in rows] == [None] * 3


def test_a_failed_row_may_end_the_job(worker, first):
    with pytest.raises(InvalidArgument, match="has no prompt") as caught:
        worker(config=sim_config(on_error="raise"), preprocess=judged)(first)
    assert find_error(caught.value).param == "messages"


@pytest.mark.parametrize("own", ["it said no", {"text": "no"}, {"type": "T", "message": "m", "code": None}])
def test_a_column_of_ones_own_called_error_is_none_of_ours(worker, own):
    rows = worker()(pa.Table.from_pylist([{"prompt": "a", "error": own}])).to_pylist()
    assert rows[0]["error"] is None
    assert rows[0]["generated_text"]


def test_with_several_models_a_failed_row_passes_all_of_them(first):
    processor = build_processor(sim_config(models={"late": ModelConfig(engine="sim")}), judged)
    workers = [BatchWorker(one.job) for one in (processor, *processor.further)]
    try:
        for worker in workers:
            first = worker(first)
    finally:
        for worker in workers:
            worker.close()
    assert [row["error"] and row["error"]["code"] for row in first.to_pylist()] == [None, "invalid_argument", None]


def test_in_the_columns_of_ray_too():
    def ask(row):
        return {"prompt": row["prompt"] and "a", "prompt_token_ids": None}

    processor = make_processor(sim_config(), ask, dialect=RayDialect())
    worker = BatchWorker(processor.job)
    try:
        once = worker(pa.Table.from_pylist([{"prompt": "a"}, {"prompt": None}]))
        again = worker(once).to_pylist()
    finally:
        worker.close()
    assert again[0]["__inference_error__"] == ""
    assert again[1]["__inference_error__"] == once.to_pylist()[1]["__inference_error__"] != ""


def test_a_preprocess_in_tasks_of_its_own_does_not_see_failed_rows(worker, first):
    seen = []
    dialect = worker()._job.dialect
    step = Preprocess(function=lambda row: seen.append(row["id"]) or {}, on_error="row", skip=dialect)
    made = [step(row) for row in first.to_pylist()]
    assert seen == [0, 2]
    assert [row[FAILED_BEFORE] for row in made] == [""] * 3
    rows = worker()(pa.Table.from_pylist(made)).to_pylist()
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "invalid_argument", None]


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:Use 'expr'")
def test_on_ray_the_account_of_the_second_counts_what_failed_in_the_first(ray_session, tmp_path):
    answer = build_processor(sim_config(batch_size=16))
    judge = build_processor(sim_config(batch_size=16), judged, verdict)
    rows = [{"id": index, "prompt": None if index % 5 == 0 else "a"} for index in range(100)]
    dataset = ray_session.data.from_items(rows)
    account = judge.run(answer(dataset), str(tmp_path / "out.jsonl"))
    assert (account["rows_in"], account["ok"], account["failed"]) == (100, 80, 20)
    assert [(kind["code"], kind["count"]) for kind in account["errors"]] == [("invalid_argument", 20)]
    told = judge(answer(dataset)).take_all()
    failed = {row["id"]: row for row in told if row["error"] is not None}
    assert sorted(failed) == list(range(0, 100, 5))
    assert all("has no prompt" in row["error"]["message"] and row["verdict"] is None for row in failed.values())
    again = build_processor(sim_config(skip_failed=False), judged).run(answer(dataset), str(tmp_path / "again.jsonl"))
    assert (again["ok"], again["failed"]) == (100, 0)
