"""The examples run as a newcomer runs them, and leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.long, pytest.mark.engine, pytest.mark.ray, pytest.mark.timeout(600)]
EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "batch.py": ["'item': 'Start of the haiku is: Complete this for me...'", "'answer':"],
    "serving.py": ["Paris"],
    "demo.py": ["PARIS", "Paris", "demo, capitals, pirate", "done"],
}


def ray_and_engines():
    """Return the processes of any Ray and any engine on this machine, by id and name."""
    names = ("raylet", "gcs_server", "EngineCore", "ray::", "haproxy")
    found = set()
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [process.info["name"] or ""])
        if any(name in line for name in names) and process.status() != psutil.STATUS_ZOMBIE:
            found.add((process.pid, line[:80]))
    return found


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs_as_it_stands(name):
    before = ray_and_engines()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CPU_", "OMP_NUM"))}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for words in SAID[name]:
        assert words in done.stdout
    assert ray_and_engines() - before == set()
