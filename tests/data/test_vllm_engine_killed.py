"""A batch on real vLLM whose engine's own process is killed ends with every row, on an engine that takes its place."""

import os
import signal

import psutil
import pytest

from trunnion_demo import model_path
from trunnion_ray.data import ProcessorConfig, build_processor
from vllm_processes import is_engine

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]


def engine_of(pid):
    """Return the process of the engine that a replica started."""
    below = psutil.Process(pid).children(recursive=True)
    return next(process for process in below if is_engine(process))


def test_a_killed_engine_is_replaced_and_every_row_accounted_for(ray_session, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()

    def ask(row):
        (pids / str(os.getpid())).touch()
        sampling = {"max_tokens": 48, "ignore_eos": True, "temperature": 0}
        return {"prompt": f"Number {row['id']} is", "sampling_params": sampling}

    settings = {"enforce_eager": True, "max_model_len": 512}
    config = ProcessorConfig(
        engine="vllm", model=str(model_path()), config=settings, batch_size=16, max_concurrent_batches=4,
        journal=str(tmp_path / "journal"),
    )  # fmt: skip
    killed = []

    def watched(account):
        if not killed:
            (replica,) = pids.iterdir()
            killed.append(engine_of(int(replica.name)))
            killed[0].send_signal(signal.SIGKILL)

    out = tmp_path / "out.parquet"
    account = build_processor(config, ask).run(ray_session.data.range(256), str(out), watched=watched)
    assert not killed[0].is_running() or killed[0].status() == psutil.STATUS_ZOMBIE
    assert (account["rows_in"], account["ok"], account["failed"]) == (256, 256, 0)
    assert account["engine_restarts"] == 1
    assert len(list(pids.iterdir())) == 1  # the replica itself lived on
    import pyarrow.parquet as pq

    rows = pq.read_table(out).to_pylist()
    assert sorted(row["id"] for row in rows) == [*range(256)]
    assert {row["num_generated_tokens"] for row in rows} == {48}
