"""Jobs on a real Ray that lose replicas, engines and themselves, and no row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_sim import sim_config

from trunnion.errors import ConfigError, EngineDead, InternalError, Overloaded, TrunnionError
from trunnion_ray.data import ProcessorConfig, build_processor, find_error

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:Use 'expr'")]


@pytest.fixture(scope="module")
def data(ray_session):
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    return ray_session.data


def prompt(row):
    return {"prompt": f"number {row['id']}"}


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_run_writes_every_row_and_draws_up_the_account(data, tmp_path):
    def odd(row):
        if row["id"] == 3:
            raise ValueError("no threes")
        return {**prompt(row), "sampling_params": {"n": 0} if row["id"] % 10 == 0 else None}

    def late(row):
        if row["id"] == 4:
            raise ValueError("no fours")
        return row

    processor = build_processor(sim_config(batch_size=8), odd, late)
    out, dead, summary = (str(tmp_path / name) for name in ("out.jsonl", "dead.jsonl", "summary.json"))
    account = processor.run(data.range(100), out, dead_letters=dead, summary=summary)
    assert (account["rows_in"], account["ok"], account["failed"], account["partial"]) == (100, 88, 12, False)
    assert account["prompt_tokens"] == 2 * 89  # of the row that failed afterwards too
    codes = {error["code"]: error["count"] for error in account["errors"]}
    assert codes == {"invalid_argument": 10, "preprocess_failed": 1, "postprocess_failed": 1}
    assert not any("row" in error["example"] for error in account["errors"])  # rows come out in any order
    assert json.loads(Path(summary).read_text()) == account
    rows = lines(out)
    assert sorted(row["id"] for row in rows) == [*range(100)]
    assert sorted(row["id"] for row in lines(dead)) == sorted(row["id"] for row in rows if row["error"])
    assert not {"generated_text", "usage"} & {name for row in lines(dead) for name in row}
    with pytest.raises(ConfigError, match="exists"):
        processor.run(data.range(100), out)


def test_a_run_writes_folders_side_by_side(data, tmp_path):
    account = build_processor(sim_config(batch_size=8), prompt).run(data.range(50), f"{tmp_path}/folder/")
    assert (account["rows_in"], account["ok"], account["partial"]) == (50, 50, False)
    assert pq.read_table(tmp_path / "folder").num_rows == 50


def test_a_dataset_that_is_not_consumed_whole_has_a_partial_account(data):
    processor = build_processor(sim_config(batch_size=5), prompt)
    with pytest.raises(ConfigError, match="call it with one"):
        processor.summary()
    dataset = processor(data.range(200, override_num_blocks=40))
    dataset.take(3)
    account = processor.summary()
    assert account["partial"] is True
    assert 3 <= account["rows_in"] < 200
    processor(data.range(20)).materialize()
    assert (processor.summary()["rows_in"], processor.summary()["partial"]) == (20, False)


def test_a_journal_answers_what_was_answered_before(data, tmp_path):
    rows = [{"id": index, "prompt": f"number {index % 7}"} for index in range(100)]
    config = {"batch_size": 8, "journal": str(tmp_path / "journal"), "sampling": {"max_tokens": 4, "temperature": 1.0}}
    first = build_processor(sim_config(**config)).run(data.from_items(rows), str(tmp_path / "first.jsonl"))
    assert (first["replayed"], first["journal_rows"]) == (0, 100)
    refuses = {**config, "config": {"fault": "refuse"}, "recovery": {"row_retries": 0}}
    second = build_processor(sim_config(**refuses)).run(data.from_items(rows), str(tmp_path / "second.jsonl"))
    assert (second["ok"], second["replayed"], second["journal_rows"]) == (100, 100, 0)
    assert (second["rows_per_second"], second["tokens_per_second"]) == (0.0, 0.0)  # none of it was its own work
    assert second["replayed_prompt_tokens"] == second["prompt_tokens"] == first["prompt_tokens"] > 0

    def texts(name):
        return Counter((row["prompt"], row["generated_text"]) for row in lines(tmp_path / name))

    assert texts("first.jsonl") == texts("second.jsonl")
    more = [*rows, {"id": 100, "prompt": "number 3"}]
    third = build_processor(sim_config(**refuses)).run(data.from_items(more), str(tmp_path / "third.jsonl"))
    assert (third["ok"], third["failed"]) == (100, 1)  # an equal row more is a row more
    changed = {**refuses, "sampling": {"max_tokens": 5, "temperature": 1.0}}
    fourth = build_processor(sim_config(**changed)).run(data.from_items(rows), str(tmp_path / "fourth.jsonl"))
    assert fourth["ok"] == 0


def test_a_cache_answers_other_jobs(data, tmp_path):
    rows = [{"id": index, "prompt": f"number {index % 5}"} for index in range(20)]
    config = {"cache": str(tmp_path / "cache"), "sampling": {"max_tokens": 4, "temperature": 0}}
    build_processor(sim_config(**config)).run(data.from_items(rows), str(tmp_path / "a.jsonl"))
    refuses = {**config, "config": {"fault": "refuse"}, "recovery": {"row_retries": 0}}
    second = build_processor(sim_config(**refuses)).run(data.from_items(rows * 3), str(tmp_path / "b.jsonl"))
    assert (second["ok"], second["replayed"]) == (60, 60)
    sampled = {**refuses, "sampling": {"max_tokens": 4, "temperature": 1.0}}
    third = build_processor(sim_config(**sampled)).run(data.from_items(rows), str(tmp_path / "c.jsonl"))
    assert third["ok"] == 0


def test_a_killed_replica_is_replaced_and_no_row_is_lost(data, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()

    def noted(row):
        (pids / str(os.getpid())).touch()
        return prompt(row)

    config = sim_config(
        batch_size=16, config={"tpot": 0.05}, concurrency=2, max_concurrent_batches=2, journal=str(tmp_path / "journal")
    )
    killed = []

    def watched(account):
        if not killed:
            killed.append(int(next(pids.iterdir()).name))
            os.kill(killed[0], signal.SIGKILL)

    account = build_processor(config, noted).run(
        data.range(640, override_num_blocks=40), str(tmp_path / "out.jsonl"), watched=watched
    )
    assert killed
    assert (account["rows_in"], account["ok"]) == (640, 640)
    assert account["engine_restarts"] >= 1
    assert sorted(row["id"] for row in lines(tmp_path / "out.jsonl")) == [*range(640)]


def test_a_row_that_takes_the_process_with_it_is_set_apart(data, tmp_path):
    """The engine runs in the replica's own process, so nothing in it can count deaths."""
    config = sim_config(batch_size=8, config={"fault": "exit", "fault_marker": "number 17 ", "tpot": 0.01})

    def spaced(row):
        return {"prompt": f"number {row['id']} "}

    account = build_processor(config, spaced).run(data.range(40), str(tmp_path / "out.jsonl"))
    assert (account["rows_in"], account["ok"], account["failed"]) == (40, 39, 1)
    assert [error["code"] for error in account["errors"]] == ["row_quarantined"]
    assert account["engine_restarts"] == 3


def test_replicas_whose_process_ends_with_every_row_end_the_job(data, tmp_path):
    config = sim_config(batch_size=8, config={"fault": "exit"}, recovery={"max_engine_restarts": 2})
    with pytest.raises(EngineDead, match="process ended 3 times without an answered row") as caught:
        build_processor(config, prompt).run(data.range(100), str(tmp_path / "out.jsonl"))
    assert caught.value.param == "max_engine_restarts"


@pytest.mark.parametrize("limit", [20, None])
def test_an_endpoint_that_nobody_reaches_ends_the_job(data, tmp_path, limit):
    config = ProcessorConfig(
        engine="openai",
        model="m",
        config={"base_url": "http://127.0.0.1:9/v1", "check_endpoint": False, "max_retries": 0},
        sampling={"max_tokens": 4},
        recovery={"row_retries": 0, "max_unreachable_rows": limit},
        batch_size=8,
    )
    run = build_processor(config, prompt).run
    output = str(tmp_path / "out.jsonl")
    if limit is None:
        assert run(data.range(100), output)["failed"] == 100
        return
    with pytest.raises(EngineDead, match="failed one after the other because the engine cannot be reached") as caught:
        run(data.range(100), output)
    assert caught.value.param == "max_unreachable_rows"


def test_too_many_errors_end_the_job_and_the_journal_has_the_rest(data, tmp_path):
    def half(row):
        return {**prompt(row), "sampling_params": {"n": row["id"] % 2}}

    config = {"batch_size": 10, "max_error_rate": 0.3, "journal": str(tmp_path / "journal")}
    with pytest.raises(TrunnionError, match=r"max_error_rate=0\.3") as caught:
        build_processor(sim_config(**config), half).run(data.range(400), str(tmp_path / "out.jsonl"))
    assert caught.value.code == "too_many_errors"
    assert not (tmp_path / "out.jsonl").exists()
    again = build_processor(sim_config(**{**config, "max_error_rate": None}), half)
    account = again.run(data.range(400), str(tmp_path / "out.jsonl"))
    assert (account["ok"], account["failed"]) == (200, 200)
    assert account["replayed"] >= 50


def test_a_row_is_tried_again_and_has_its_time(data, tmp_path):
    refuses = {"faults": [{"kind": "refuse", "requests": [0, 1]}]}
    for retries, failed in ((2, 0), (0, 1)):
        recovery = {"row_retries": retries, "retry_backoff": 0.0}
        config = sim_config(config=refuses, max_pending_requests=1, recovery=recovery)
        account = build_processor(config).run(data.from_items([{"prompt": "a"}]), str(tmp_path / f"{retries}.jsonl"))
        assert account["failed"] == failed
    hangs = sim_config(config={"fault": "hang"}, recovery={"row_timeout": 0.3})
    account = build_processor(hangs).run(data.from_items([{"prompt": "a"}]), str(tmp_path / "hangs.jsonl"))
    assert account["errors"][0]["code"] == "deadline_exceeded"


def test_a_journal_that_cannot_be_opened_ends_the_job_with_the_reason(data, tmp_path):
    (tmp_path / "file").write_text("")
    processor = build_processor(sim_config(journal=str(tmp_path / "file")), prompt)
    with pytest.raises(ConfigError, match="cannot be opened"):
        processor.run(data.range(3), str(tmp_path / "out.jsonl"))
    with pytest.raises(Exception) as caught:
        processor(data.range(3)).materialize()
    assert isinstance(find_error(caught.value), ConfigError)


JOB = """
import sys
import ray
from trunnion_ray.data import ProcessorConfig, build_processor

ray.data.DataContext.get_current().enable_progress_bars = False
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
config = ProcessorConfig(
    engine="sim", config={"tpot": 0.05}, sampling={"max_tokens": 4}, batch_size=8, journal=sys.argv[1],
    max_concurrent_batches=2,
)
processor = build_processor(config, lambda row: {"prompt": f"number {row['id']}"})
print(processor.run(ray.data.range(300), sys.argv[2])["replayed"], flush=True)
"""


def test_a_job_that_is_killed_whole_goes_on(tmp_path):
    journal, out = tmp_path / "journal", tmp_path / "out.jsonl"
    command = [sys.executable, "-c", JOB, str(journal), str(out)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while sum(path.stat().st_size for path in journal.glob("*.rows")) < 4000:
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    replayed = int(done.stdout.split()[-1])
    assert 30 < replayed < 300
    assert sorted(row["id"] for row in lines(out)) == [*range(300)]
    assert not {InternalError, Overloaded} & {type(row["error"]) for row in lines(out)}
