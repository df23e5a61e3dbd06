"""Helpers: a worker without Ray, and a processor on the simulated engine."""

import pyarrow as pa
import pytest
from data_sim import sim_config

from trunnion_ray.data import build_processor


@pytest.fixture
def worker():
    """Return a function that makes a worker as the actor would; all are closed at the end."""
    from trunnion_ray.data.worker import BatchWorker

    made = []

    def make(config=None, preprocess=None, postprocess=None, **fields):
        processor = build_processor(config or sim_config(**fields), preprocess, postprocess)
        made.append(BatchWorker(processor.job))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def answer(worker):
    """Return a function that sends rows through a worker and returns the rows that come back."""

    def run(rows, *args, **fields):
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
        return worker(*args, **fields)(table).to_pylist()

    return run
