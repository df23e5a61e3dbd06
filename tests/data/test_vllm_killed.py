"""A batch on real vLLM goes on when its worker is killed and ends when interrupted, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from trunnion_demo import model_path
from vllm_processes import is_engine

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(400)]
JOB = f"""
import os
import ray
from trunnion_ray.data import ProcessorConfig, build_processor

ray.data.DataContext.get_current().enable_progress_bars = False
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
config = ProcessorConfig(
    engine="vllm", model={str(model_path())!r}, config=dict(enforce_eager=True, max_model_len=512), batch_size=16
)
processor = build_processor(
    config,
    preprocess=lambda row: dict(prompt=f"Number {{row['id']}}", sampling_params=dict(max_tokens=32, ignore_eos=True)),
    postprocess=lambda row: dict(pid=os.getpid(), error=row["error"]),
)
seen = None
for row in processor(ray.data.range(100_000, override_num_blocks=500)).iter_rows():
    assert row["error"] is None, row
    if row["pid"] != seen:
        seen = row["pid"]
        print(seen, flush=True)
"""


def tree(pid):
    """Return a worker's processes, with the engine's, and the watcher that ends them."""
    worker = psutil.Process(pid)
    processes = [worker, *worker.children(recursive=True)]
    assert any(map(is_engine, processes))
    return processes


def next_worker(job):
    """Return the process id that the job prints next; Ray prints between."""
    return int(next(line for line in job.stdout if line.strip().isdigit()))


def wait_until_gone(processes, seconds=20):
    deadline = time.monotonic() + seconds
    while left := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_a_killed_worker_is_replaced_and_an_interrupt_ends_the_job():
    with subprocess.Popen([sys.executable, "-c", JOB], stdout=subprocess.PIPE, text=True) as job:
        try:
            worker = next_worker(job)
            first = tree(worker)
            os.kill(worker, signal.SIGKILL)
            wait_until_gone(first)
            second = tree(next_worker(job))
            job.send_signal(signal.SIGINT)
            assert job.wait(150) != 0  # Ray waits for its actors to end, and gives them the least of a busy machine
            wait_until_gone(second)
        finally:
            job.kill()
