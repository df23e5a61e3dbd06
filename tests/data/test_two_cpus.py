"""One replica beside reading, mapping and both functions, where Ray has two CPUs in all."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import ray
    from trunnion_ray.data import ProcessorConfig, build_processor

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    config = ProcessorConfig(engine="sim", sampling={{"max_tokens": 4}})
    processor = build_processor(
        config, preprocess=lambda row: {{"prompt": str(row["id"])}}, postprocess=lambda row: {{"id": row["id"]}}
    )
    path = {path!r}
    ray.data.range(1000).write_parquet(path)
    rows = processor(ray.data.read_parquet(path).map(lambda row: row)).map(lambda row: row).take_all()
    assert sorted(row["id"] for row in rows) == list(range(1000)), len(rows)
    print("done", len(rows))
"""


@pytest.mark.ray
@pytest.mark.timeout(150)
def test_one_replica_runs_on_two_cpus(tmp_path):
    program = textwrap.dedent(PROGRAM).format(path=str(tmp_path / "in"))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert "done 1000" in done.stdout, done.stderr[-3000:]
