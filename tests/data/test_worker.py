"""One block through the engine's actor, without Ray around it."""

import json
import threading
import time

import pyarrow as pa
import pytest
from data_sim import sim_config

from trunnion.errors import AdapterNotFound, EngineDead, InternalError
from trunnion.rows import OUTPUT_COLUMNS, error_from_column
from trunnion_ray.data import find_error
from trunnion_sim.engine import SimEngine


def codes(rows):
    return [row["error"] and row["error"]["code"] for row in rows]


def test_every_kind_of_prompt_is_answered_and_columns_pass_through(answer):
    chat = [{"role": "user", "content": "hello"}]
    table = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int8()),
            "messages": pa.array([chat, None, None]),
            "prompt": [None, "hello", None],
            "prompt_token_ids": [None, None, [5, 6, 7]],
        }
    )
    rows = answer(table)
    assert codes(rows) == [None] * 3
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {*table.column_names, *OUTPUT_COLUMNS}
    assert [row["num_input_tokens"] for row in rows] == [3, 1, 3]  # "user: hello" counts the colon
    for row in rows:
        assert (row["num_generated_tokens"], len(row["generated_tokens"]), row["finish_reason"]) == (4, 4, "length")
        assert row["usage"]["total_tokens"] == row["num_input_tokens"] + 4
        assert len(row["generated_text"].split()) == 4


def test_a_row_has_its_own_sampling_and_model(answer):
    rows = answer(
        [
            {"prompt": "a", "sampling_params": {"max_tokens": 2}, "model": "base"},
            {"prompt": "a", "sampling_params": {}, "model": "loud"},
            {"prompt": "a", "sampling_params": None, "model": None},
            {"prompt": "a", "sampling_params": None, "model": "nobody"},
        ],
        config=sim_config(config={"adapters": ["loud"]}, base_models=("base",)),
    )
    assert [row["num_generated_tokens"] for row in rows] == [2, 4, 4, 0]
    assert rows[1]["generated_text"].isupper()
    assert rows[2]["generated_text"].islower()
    error = error_from_column(rows[3]["error"])
    assert isinstance(error, AdapterNotFound)
    assert error.param == "model"


def test_the_default_adapter_is_that_of_rows_without_a_model(answer):
    rows = answer([{"prompt": "a"}], config=sim_config(config={"adapters": ["loud"]}, adapter="loud"))
    assert rows[0]["generated_text"].isupper()


def test_every_row_is_accounted_for(answer):
    rows = answer(
        [
            {"prompt": None, "sampling_params": None},
            {"prompt": "ok", "sampling_params": None},
            {"prompt": "bad", "sampling_params": {"temperature": -1.0}},
            {"prompt": "long", "sampling_params": {"max_tokens": 10**6}},
        ]
    )
    assert codes(rows) == ["invalid_argument", None, "invalid_argument", "context_length_exceeded"]
    assert [row["prompt"] for row in rows] == [None, "ok", "bad", "long"]
    assert rows[2]["error"]["param"] == "sampling_params.temperature"
    assert rows[3]["generated_text"] is None


def test_other_names_for_the_columns(answer):
    rows = answer([{"text": "hi", "prompt": "not this"}], config=sim_config(columns={"prompt": "text"}))
    assert rows[0]["num_input_tokens"] == 1


def test_preprocess_adds_columns_and_postprocess_makes_the_row(answer):
    rows = answer(
        [{"id": 7}],
        preprocess=lambda row: {"prompt": f"number {row['id']}"},
        postprocess=lambda row: {"answer": row["generated_text"], **row},
    )
    assert rows[0]["prompt"] == "number 7"
    assert rows[0]["answer"] == rows[0]["generated_text"]
    assert set(rows[0]) == {"id", "prompt", "answer", *OUTPUT_COLUMNS}


def test_messages_need_no_common_type(answer):
    def preprocess(row):
        parts = [{"type": "text", "text": "hi"}]
        message = {"role": "user", "content": parts if row["id"] else "hi"}
        return {"messages": [message, {"role": "user", "content": "there", "name": "x"}]}

    rows = answer(
        [{"id": 0}, {"id": 1}], preprocess=preprocess, postprocess=lambda row: {"text": row["generated_text"]}
    )
    assert codes(rows) == [None, None]
    assert [set(row) for row in rows] == [{"text", "error"}] * 2


def test_an_error_in_preprocess_or_postprocess_costs_its_row_alone(answer):
    def preprocess(row):
        row["touched"] = True
        return {"prompt": "x" * (6 // row["id"])}

    rows = answer(
        [{"id": 0}, {"id": 1}, {"id": 2}],
        preprocess=preprocess,
        postprocess=lambda row: {"id": row["id"], "share": 1 / (row["id"] - 1)},
    )
    assert codes(rows) == ["preprocess_failed", "postprocess_failed", None]
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert json.loads(rows[0]["error"]["details"]) == {"exception": "ZeroDivisionError"}
    assert rows[2]["share"] == 1.0
    assert "touched" not in rows[0]  # a failed row keeps its input as it came
    assert rows[1]["generated_text"]  # and an answer that was paid for
    assert rows[1]["num_generated_tokens"] > 0


def test_a_function_must_return_a_row(answer):
    rows = answer([{"prompt": "a"}], postprocess=lambda _: None)
    assert codes(rows) == ["postprocess_failed"]
    assert codes(answer([{"prompt": "a"}], preprocess=lambda _: 3)) == ["preprocess_failed"]


@pytest.mark.parametrize("where", ["preprocess", "row", "engine", "postprocess"])
def test_the_first_error_may_end_the_job(worker, where):
    def fail(_):
        raise KeyError("gone")

    functions = {where: fail} if where in ("preprocess", "postprocess") else {}
    fault = {"fault": "die", "fault_marker": "boom"}
    one = worker(sim_config(on_error="raise", config=fault), **functions)
    prompts = {"row": None, "engine": "boom"}
    with pytest.raises(Exception) as caught:
        one(pa.table({"prompt": ["fine", prompts.get(where, "a")]}))
    error = find_error(caught.value)
    assert error is caught.value
    if where in ("preprocess", "postprocess"):
        assert error.code == f"{where}_failed"
        assert isinstance(error.__cause__, KeyError)


def test_without_error_rows_there_is_no_error_column(answer):
    rows = answer([{"prompt": "a"}], config=sim_config(on_error="raise"), postprocess=lambda _: {"x": 1})
    assert rows == [{"x": 1}]


@pytest.mark.parametrize("function", [None, dict])
def test_an_empty_block_stays_empty(worker, function):
    made = worker(postprocess=function)(pa.table({"prompt": pa.array([], pa.string())}))
    assert made.num_rows == 0


def test_an_engine_that_does_not_start_says_so_at_the_first_call(worker):
    one = worker(config=sim_config(config={"tokenizer": "/no/such/tokenizer"}))
    with pytest.raises(InternalError, match="sim"):
        one(pa.table({"prompt": ["a"]}))


def test_an_engine_that_dies_for_good_fails_the_block_and_those_that_follow(worker):
    crash = {"fault": "crash", "fault_marker": "boom"}
    one = worker(config=sim_config(config=crash, recovery={"max_engine_restarts": 0}))
    assert one(pa.table({"prompt": ["a"]})).column("error").to_pylist() == [None]
    for prompt in ("boom", "a"):
        with pytest.raises(EngineDead):
            one(pa.table({"prompt": ["b", prompt]}))


def test_rows_go_in_the_order_of_their_prompts_if_asked_to(worker):
    assert worker(config=sim_config(prefix_order=True))._runner._order is not None
    assert worker()._runner._order is None


def test_a_row_that_kills_engines_is_set_apart(worker):
    one = worker(config=sim_config(config={"fault": "crash", "fault_marker": "boom"}))
    rows = one(pa.table({"prompt": ["a", "boom", "b"]})).to_pylist()
    assert codes(rows) == [None, "row_quarantined", None]
    assert codes(one(pa.table({"prompt": ["c"]})).to_pylist()) == [None]


def test_adapters_that_rows_named_are_loaded_into_the_next_engine(worker, tmp_path):
    (tmp_path / "loud").mkdir()
    config = {"faults": [{"kind": "crash", "requests": [1]}], "adapters": []}
    one = worker(config=sim_config(config=config, adapter_root=str(tmp_path)))
    loud = [{"prompt": "a", "model": "loud"}]
    assert one(pa.Table.from_pylist(loud)).to_pylist()[0]["generated_text"].isupper()
    (row,) = one(pa.Table.from_pylist(loud)).to_pylist()  # the second request crashes its engine
    assert row["error"] is None
    assert row["generated_text"].isupper()


def test_blocks_run_side_by_side(worker):
    one = worker(config=sim_config(config={"ttft": 0.3}))
    table = pa.table({"prompt": ["a"] * 5})
    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(table,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 1.5


def test_pending_requests_can_be_limited(worker):
    one = worker(config=sim_config(config={"ttft": 0.1}, max_pending_requests=2))
    began = time.monotonic()
    one(pa.table({"prompt": ["a"] * 8}))
    assert time.monotonic() - began > 0.35


def test_adapters_are_loaded_when_a_row_names_them(worker, tmp_path):
    cannot = worker(config=sim_config(adapter_root=str(tmp_path), config={"unsupported": ["hot_adapters/1"]}))
    rows = cannot(pa.table({"prompt": ["a", "b"], "model": ["loud", None]})).to_pylist()
    assert codes(rows) == ["unsupported_feature", None]
    (tmp_path / "loud").mkdir()
    loaded = []

    class Engine(SimEngine):
        async def load_adapter(self, adapter):
            loaded.append(adapter)
            await super().load_adapter(adapter)

    one = worker(config=sim_config(adapter_root=str(tmp_path)))
    one._runner.pipeline.engine.__class__ = Engine
    rows = one(pa.table({"prompt": ["a", "b", "c"], "model": ["loud", "loud", "../up"]})).to_pylist()
    assert codes(rows) == [None, None, "adapter_not_found"]
    assert [(adapter.name, adapter.path) for adapter in loaded] == [("loud", str(tmp_path / "loud"))]


def test_a_closed_worker_takes_nothing(worker):
    one = worker()
    one.close()
    one.close()
    with pytest.raises(InternalError, match="closed"):
        one(pa.table({"prompt": ["a"]}))
