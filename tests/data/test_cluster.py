"""Jobs on several nodes of one machine: a node that is lost costs time and no row; pools grow and shrink."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]

# A process of its own: the other tests' Ray runs in this one.
CLUSTER = """
import json, os, sys, time
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
others = [cluster.add_node(num_cpus=2) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
from trunnion_ray.data import ProcessorConfig, build_processor
"""
LOST_NODE = (
    CLUSTER
    + """
config = ProcessorConfig(
    engine="sim", config={"tpot": 0.05}, sampling={"max_tokens": 4}, batch_size=8, max_concurrent_batches=2,
    concurrency=3, journal=sys.argv[1] + "/journal",
)
lost = []
def watched(account):
    if account.rows >= 20 and not lost:
        here = ray.get_runtime_context().get_node_id()
        lost.append(next(node for node in others if node.node_id != here))
        cluster.remove_node(lost[0], allow_graceful=False)

def ask(row):
    return {"prompt": f"number {row['id']}", "node": ray.get_runtime_context().get_node_id()}

account = build_processor(config, ask).run(ray.data.range(600), sys.argv[1] + "/out.jsonl", watched=watched)
print(json.dumps({"account": account, "lost": len(lost), "alive": sum(node["Alive"] for node in ray.nodes())}))
ray.shutdown()
cluster.shutdown()
"""
)
POOL = (
    CLUSTER
    + """
config = ProcessorConfig(
    engine="sim", config={"tpot": 0.1}, sampling={"max_tokens": 4}, batch_size=4, max_concurrent_batches=1,
    max_tasks_in_flight_per_actor=2, concurrency=(1, 3),
)
def ask(row):
    return {"prompt": f"number {row['id']}"}

def with_pid(row):
    return {"id": row["id"], "pid": os.getpid()}

rows = build_processor(config, ask, with_pid)(ray.data.range(400)).take_all()
import psutil
pids = {row["pid"] for row in rows}
deadline = time.monotonic() + 60
while time.monotonic() < deadline and any(psutil.pid_exists(pid) for pid in pids):
    time.sleep(0.5)
left = sum(psutil.pid_exists(pid) for pid in pids)
print(json.dumps({"rows": len(rows), "pids": len({row["pid"] for row in rows}), "left": left}))
ray.shutdown()
cluster.shutdown()
"""
)


def run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=380, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))  # Ray prints as well


def test_a_job_that_loses_a_node_finishes_with_all_rows(tmp_path):
    told = run(LOST_NODE, tmp_path)
    account = told["account"]
    assert (told["lost"], told["alive"]) == (1, 2)
    assert (account["rows_in"], account["ok"]) == (600, 600)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == [*range(600)]
    assert len({row["node"] for row in rows}) >= 2


def test_a_pool_grows_under_load_and_shrinks_after_it():
    told = run(POOL)
    assert told["rows"] == 400
    assert 2 <= told["pids"] <= 3
    assert told["left"] == 0
