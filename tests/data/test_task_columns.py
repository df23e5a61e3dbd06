"""Rows that embed, classify and score on a real Ray, with the simulated engine."""

import pyarrow as pa
import pytest
from data_sim import sim_config

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion_ray.data import ProcessorConfig, build_processor
from trunnion_ray.data.processor import make_processor
from trunnion_ray.data.ray_dialect import RayDialect

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:Use 'expr'")]


@pytest.fixture(scope="module")
def data(ray_session):
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    return ray_session.data


def config(task, **fields):
    return ProcessorConfig(engine="sim", task=task, batch_size=16, **fields)


def test_embeddings_are_float_lists_and_every_row_is_accounted_for(data, tmp_path):
    processor = build_processor(
        config("embed", dimensions=8),
        preprocess=lambda row: {} if row["id"] == 7 else {"prompt": f"number {row['id']}"},
    )
    answered = processor(data.range(40)).materialize()
    assert set(answered.schema().names) == {"id", "prompt", "embedding", "num_input_tokens", "usage", "error"}
    table = pa.concat_tables(list(answered.iter_batches(batch_size=None, batch_format="pyarrow")))
    assert table.schema.field("embedding").type == pa.list_(pa.float32())
    rows = {row["id"]: row for row in table.to_pylist()}
    assert sorted(rows) == list(range(40))
    assert rows.pop(7)["error"]["code"] == "invalid_argument"
    assert all(len(row["embedding"]) == 8 and row["error"] is None for row in rows.values())
    counted = processor.summary()
    assert (counted["ok"], counted["failed"], counted["prompt_tokens"]) == (39, 1, 78)
    assert "engine (embed)" in processor.explain()


def test_labels_and_scores(data, tmp_path):
    rows = data.from_items([{"id": i, "query": "a cat", "texts": ["a cat", f"dog {i}"]} for i in range(10)])
    out = tmp_path / "scores.parquet"
    account = build_processor(config("score")).run(rows, str(out))
    assert (account["rows_in"], account["ok"]) == (10, 10)
    import pyarrow.parquet as pq

    written = pq.read_table(out)
    assert written.schema.field("scores").type == pa.list_(pa.float32())
    assert all(scores[0] == pytest.approx(1.0) for scores in written.column("scores").to_pylist())
    assert "generated_text" not in written.column_names
    labelled = build_processor(
        config("classify"),
        preprocess=lambda row: {"prompt": "a positive day" if row["id"] else "a negative day"},
        postprocess=lambda row: {"id": row["id"], "label": row["predicted_label"]},
    )(data.range(2))
    assert {row["id"]: row["label"] for row in labelled.take_all()} == {0: "negative", 1: "positive"}


def test_a_job_goes_on_from_its_journal(data, tmp_path):
    processor = build_processor(
        config("embed", journal=str(tmp_path / "journal")), preprocess=lambda row: {"prompt": f"number {row['id']}"}
    )
    for replayed, name in ((0, "first.jsonl"), (20, "second.jsonl")):
        assert processor.run(data.range(20), str(tmp_path / name))["replayed"] == replayed
    written = [sorted((tmp_path / name).read_text().splitlines()) for name in ("first.jsonl", "second.jsonl")]
    assert written[0] == written[1]
    assert len(written[0]) == 20


def test_an_engine_that_dies_is_replaced_under_rows_that_embed(data):
    faulty = config("embed", config={"faults": [{"kind": "crash", "requests": [3]}]}, recovery={"retry_backoff": 0.0})
    processor = build_processor(faulty, preprocess=lambda row: {"prompt": f"number {row['id']}"})
    rows = processor(data.range(8)).take_all()
    assert len(rows) == 8
    counted = processor.summary()
    assert counted["ok"] + counted["failed"] == 8
    assert counted["engine_restarts"] >= 1


def test_rays_columns_for_embeddings_and_labels(data):
    def processor(task):
        return make_processor(sim_config(task=task, sampling={}), dialect=RayDialect())

    (row,) = processor("embed")(data.from_items([{"prompt": "a cat", "pooling_params": {"dimensions": 4}}])).take_all()
    assert (len(row["embeddings"]), row["num_input_tokens"], row["generated_text"]) == (4, 2, "")
    assert row["__inference_error__"] == ""
    (row,) = processor("classify")(data.from_items([{"prompt": "a cat"}])).take_all()
    assert sum(row["embeddings"]) == pytest.approx(1.0)
    (row,) = processor("embed")(data.from_items([{"prompt": "a", "pooling_params": {"normalize": True}}])).take_all()
    assert row["__inference_error__"].startswith("UnsupportedFeature: pooling_params.normalize")


def test_what_does_not_go_with_a_task_is_refused_by_the_configuration():
    with pytest.raises(InvalidArgument, match="sampling"):
        build_processor(sim_config(task="embed"))
    with pytest.raises(InvalidArgument, match="dimensions"):
        build_processor(ProcessorConfig(engine="sim", dimensions=4))


def test_rays_task_type_is_taken_but_for_scores():
    from trunnion_ray.data.ray_fields import translate
    from trunnion_ray.data.ray_llm import vLLMEngineProcessorConfig

    made = translate(vLLMEngineProcessorConfig(model_source="m", task_type="embed")).config
    assert (made["task"], made["config"]["runner"]) == ("embed", "pooling")
    given = vLLMEngineProcessorConfig(model_source="m", task_type="classify", engine_kwargs={"runner": "pooling"})
    assert "runner" not in translate(given).config["config"]
    assert "runner" not in translate(vLLMEngineProcessorConfig(model_source="m")).config["config"]
    for task in ("score", "rank"):
        with pytest.raises(UnsupportedFeature, match="task_type"):
            vLLMEngineProcessorConfig(model_source="m", task_type=task)
