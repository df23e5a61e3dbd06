"""Replicas that would take every CPU, so that nothing is left to read their rows, are refused with the numbers."""

import subprocess
import sys
from pathlib import Path

import pytest

from trunnion import Bundle, Resources
from trunnion.errors import ConfigError
from trunnion_ray.data import placement
from trunnion_ray.data.placement import check_room

ONE = Resources(bundles=(Bundle(cpu=1.0),))
GPU = Resources(bundles=(Bundle(cpu=1.0, gpu=2.0),))
NONE = Resources(bundles=(Bundle(cpu=0.0),))


@pytest.fixture
def room(monkeypatch):
    def check(needed, grows=False, **there):
        monkeypatch.setattr(placement.ray, "cluster_resources", lambda: there)
        monkeypatch.setattr(placement, "can_grow", lambda: grows)
        check_room(needed)

    return check


@pytest.mark.parametrize(
    ("needed", "there"),
    [
        ([(ONE, 1)], {"CPU": 2}),
        ([(ONE, 3)], {"CPU": 4}),
        ([(NONE, 5)], {"CPU": 1}),
        ([(GPU, 2), (ONE, 1)], {"CPU": 4, "GPU": 4}),
    ],
)
def test_what_fits_is_let_pass(room, needed, there):
    room(needed, **there)


@pytest.mark.parametrize(
    ("needed", "there", "said"),
    [
        ([(ONE, 2)], {"CPU": 2}, r"2 replica\(s\) take 2 CPU and reading one more, and the cluster has 2.*num_cpus=3"),
        ([(GPU, 3)], {"CPU": 9, "GPU": 4}, r"3 replica\(s\) take 6 GPU, and the cluster has 4.*num_gpus=6"),
        ([(ONE, 2), (ONE, 2)], {"CPU": 4}, "4 replicas of 2 models take 4 CPU and reading one more"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(room, needed, there, said, caplog):
    with pytest.raises(ConfigError, match=said) as caught:
        room(needed, **there)
    assert caught.value.param == ("models" if len(needed) > 1 else "concurrency")
    room(needed, grows=True, **there)
    assert "the job waits until there are more" in caplog.text


PROGRAM = """
import ray
from trunnion.errors import ConfigError
from trunnion_ray.data import ProcessorConfig, build_processor

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
processor = build_processor(ProcessorConfig(engine="sim", concurrency=2), lambda row: {"prompt": str(row["id"])})
try:
    processor(ray.data.range(10))
except ConfigError as error:
    print("refused:", error)
"""


@pytest.mark.ray
@pytest.mark.timeout(150)
def test_on_ray_two_replicas_are_not_begun_on_two_cpus():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert "refused: 2 replica(s) take 2 CPU and reading one more" in done.stdout, done.stderr[-3000:]
