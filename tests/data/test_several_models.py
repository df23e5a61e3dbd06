"""Several models in one job: each row goes to the one it names, through actors of its own."""

import pyarrow as pa
import pytest
from data_sim import sim_config

from trunnion import Bundle
from trunnion.errors import ConfigError
from trunnion_ray.data import ModelConfig, build_processor
from trunnion_ray.data.worker import BatchWorker

MODELS = {
    "long": ModelConfig(engine="sim", config={"adapters": ["loud"]}, sampling={"max_tokens": 7}),
    "late": ModelConfig(engine="sim", sampling={"max_tokens": 2}),
}
ROWS = [
    {"id": 0, "prompt": "a", "model": None},
    {"id": 1, "prompt": "a", "model": "long"},
    {"id": 2, "prompt": "a", "model": "long:loud"},
    {"id": 3, "prompt": "a", "model": "late"},
    {"id": 4, "prompt": "a", "model": "late:nobody"},
    {"id": 5, "prompt": "a", "model": "nobody"},
    {"id": 6, "prompt": None, "model": "late"},
]
TOKENS = [4, 7, 7, 2, 0, 0, 0]
CODES = [None, None, None, None, "adapter_not_found", "adapter_not_found", "invalid_argument"]


@pytest.fixture
def through():
    """Return a function that sends blocks through the workers of every model, as Ray's actors would."""
    made = []

    def run(processor, *blocks):
        workers = [BatchWorker(one.job) for one in (processor, *processor.further)]
        made.extend(workers)
        rows = []
        for block in blocks:
            table = block if isinstance(block, pa.Table) else pa.Table.from_pylist(block)
            for worker in workers:
                table = worker(table)
            rows += table.to_pylist()
        return rows

    yield run
    for worker in made:
        worker.close()


def codes(rows):
    return [row["error"] and row["error"]["code"] for row in rows]


def test_each_row_goes_to_the_model_it_names(through):
    rows = through(build_processor(sim_config(models=MODELS)), ROWS[:4], ROWS[4:])
    assert [row["id"] for row in rows] == list(range(7))
    assert [row["num_generated_tokens"] for row in rows] == TOKENS
    assert codes(rows) == CODES
    assert "this job (long, late), or an adapter as `model:adapter`" in rows[5]["error"]["message"]
    assert rows[2]["generated_text"].isupper()
    assert {name for row in rows for name in row if name.startswith("__")} == set()
    assert [row["model"] for row in rows] == [row["model"] for row in ROWS]


def test_functions_see_every_row_once_whatever_its_model(through):
    seen = []

    def ask(row):
        seen.append(row["id"])
        return {"prompt": row["text"], "model": row["wanted"]}

    def end(row):
        return {"id": row["id"], "tokens": row["num_generated_tokens"]}

    asked = [{"id": row["id"], "text": row["prompt"], "wanted": row["model"]} for row in ROWS]
    rows = through(build_processor(sim_config(models=MODELS), ask, end), asked[:4], asked[4:])
    assert seen == list(range(7))
    assert codes(rows) == CODES
    assert [row["tokens"] for row in rows[:4]] == TOKENS[:4]
    for row, given in zip(rows[4:], asked[4:], strict=True):
        assert given.items() <= row.items()
        assert "generated_text" not in row


def test_a_failure_of_a_function_is_the_rows_own(through):
    def ask(row):
        if row["id"] == 1:
            raise ValueError("no")
        return {}

    def end(row):
        if row["id"] in (0, 3):
            raise ValueError("never")
        return {"id": row["id"]}

    rows = through(build_processor(sim_config(models=MODELS), ask, end), ROWS)
    failed = {row["id"]: row["error"]["message"] for row in rows if row["error"]}
    assert set(failed) == {0, 1, 3, 4, 5, 6}
    assert "never" in failed[0]
    assert "never" in failed[3]
    assert "no" in failed[1]


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_name_that_rows_cannot_give_is_refused(name):
    with pytest.raises(ConfigError, match="cannot name a model"):
        build_processor(sim_config(models={name: ModelConfig(engine="sim")}))


def test_a_wrong_setting_says_whose_it_is():
    with pytest.raises(ConfigError, match=r"models\.judge") as caught:
        build_processor(sim_config(models={"judge": ModelConfig(engine="sim", config={"speed": 3})}))
    assert caught.value.param == "models.judge"
    with pytest.raises(ConfigError, match="switched off"):
        build_processor(sim_config(models=MODELS, columns={"model": ""}))


def test_the_plan_has_a_line_for_each_model():
    plan = build_processor(sim_config(models=MODELS)).explain().splitlines()
    assert [line.partition(" ")[0] for line in plan] == ["engine", "long:", "late:"]


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Use 'expr'")
def test_on_ray_the_account_is_that_of_the_whole_job(ray_session, tmp_path):
    rows = [{**row, "id": row["id"] + 7 * again} for again in range(30) for row in ROWS]
    processor = build_processor(sim_config(models=MODELS, batch_size=16))
    account = processor.run(ray_session.data.from_items(rows), str(tmp_path / "out.jsonl"))
    assert (account["rows_in"], account["ok"], account["failed"]) == (210, 120, 90)
    assert {kind["code"]: kind["count"] for kind in account["errors"]} == {
        "adapter_not_found": 60,
        "invalid_argument": 30,
    }
    assert account["completion_tokens"] == 30 * sum(TOKENS)


@pytest.mark.ray
def test_models_that_would_wait_for_each_other_are_refused(ray_session):
    there = ray_session.cluster_resources()["CPU"]
    models = {"big": ModelConfig(engine="sim", bundles=(Bundle(cpu=there),))}
    with pytest.raises(ConfigError, match="reading one more") as caught:
        build_processor(sim_config(models=models))(ray_session.data.from_items(ROWS))
    assert caught.value.param == "models"


@pytest.mark.ray
def test_chained_processors_that_would_wait_for_each_other_are_refused(ray_session):
    half = ray_session.cluster_resources()["CPU"] / 2
    one = build_processor(sim_config(bundles=(Bundle(cpu=half),)))
    rows = ray_session.data.from_items(ROWS)
    one(rows)
    with pytest.raises(ConfigError, match=r"2 replicas of 2 models take .* and reading one more"):
        one(one(rows).map(lambda row: row))
    one(rows)  # beside the other, not behind it
