"""A replica that has no place anywhere is refused with the reason; on several nodes bundles go where they were sent."""

import json
import subprocess
import sys

import pytest

from trunnion_ray.serve.room import misfit

SMALL, BIG, GPU = {"CPU": 2.0}, {"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}


def of(count, **resources):
    return [{name: float(amount) for name, amount in resources.items()}] * count


@pytest.mark.parametrize(
    ("bundles", "strategy", "nodes"),
    [
        (of(2, CPU=1), "STRICT_PACK", [SMALL]),
        (of(2, CPU=1), "PACK", [SMALL]),
        (of(3, CPU=1), "PACK", [SMALL, SMALL]),
        (of(2, CPU=2), "STRICT_SPREAD", [SMALL, SMALL]),
        (of(2, CPU=1, GPU=1), "STRICT_PACK", [BIG, GPU]),
        ([*of(1, CPU=1), *of(1, CPU=8)], "SPREAD", [SMALL, BIG]),
        (of(1), "PACK", [SMALL]),
    ],
)
def test_what_fits(bundles, strategy, nodes):
    assert misfit(bundles, strategy, nodes) is None


@pytest.mark.parametrize(
    ("bundles", "strategy", "nodes", "reason"),
    [
        (of(2, CPU=2), "STRICT_PACK", [SMALL, SMALL], "one node must have 4 CPU, and the largest has 2 CPU"),
        (of(1, CPU=1, GPU=1), "PACK", [BIG], "a node must have 1 CPU and 1 GPU, and the largest has 8 CPU and 0 GPU"),
        (of(3, CPU=2), "PACK", [SMALL, SMALL], "3 bundles of 2 CPU do not fit on all nodes together: 2 CPU; 2 CPU"),
        (of(3, CPU=1), "STRICT_SPREAD", [SMALL, BIG], "3 bundles of 1 CPU do not fit on nodes of their own"),
        (of(1, TPU=1), "PACK", [BIG], "the largest has 0 TPU"),
    ],
)
def test_what_does_not_says_why(bundles, strategy, nodes, reason):
    assert reason in misfit(bundles, strategy, nodes)


# A process of its own: the other tests' Ray runs in this one.
CLUSTER = """
import json, logging
import ray
from ray import serve
from ray.cluster_utils import Cluster
from trunnion.errors import ConfigError
import trunnion_ray.serve as ts

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
try:
    ts.build_openai_app([ts.ModelConfig(name="m", engine="sim", config={"worker_cpus": 64})])
except ConfigError as error:
    alone = str(error)
both = [ts.ModelConfig(name=n, engine="sim", config={"worker_cpus": c}) for n, c in (("m", 64), ("small", 1))]
ts.build_openai_app(both)
ray.shutdown()

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=2)
ray.init(address=cluster.address, log_to_driver=False)

def place(strategy, bundles, name):
    model = ts.ModelConfig(
        name="m", engine="sim", placement_group_bundles=bundles, placement_group_strategy=strategy, num_replicas=1,
    )
    serve.run(ts.build_openai_app([model]), name=name, route_prefix="/" + name)
    groups = [g for g in ray.util.placement_group_table().values() if g["state"] == "CREATED"]
    serve.delete(name)
    (group,) = groups
    return len(set(group["bundles_to_node_id"].values()))

ts.ensure_serve("proxy", port=PORT)
spread = place("STRICT_SPREAD", ({"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}), "spread")
packed = place("STRICT_PACK", ({"CPU": 1.0}, {"CPU": 1.0}), "packed")
serve.shutdown()
print(json.dumps({"alone": alone, "spread": spread, "packed": packed}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_on_a_cluster():
    from .conftest import free_port

    source = CLUSTER.replace("PORT", str(free_port()))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert "model 'm' has no place: a node must have 64 CPU, and the largest has 2 CPU" in told["alone"]
    assert "model 'm' has no place" in done.stderr  # of two, the one that fits is served
    assert "'small' has no place" not in done.stderr
    assert (told["spread"], told["packed"]) == (3, 1)
