"""The program people have for Ray's LLM serving modules runs as it stands, on the real engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import free_port, wait_until
from .test_reaper import alive

EXAMPLE = Path(__file__).parents[2] / "examples" / "serving.py"
ENDING = "    serve.shutdown()\n    ray.shutdown()\n"
INSTEAD = """
    import json
    from ray.serve.context import _get_global_client
    from trunnion_ray.reaper import descendants

    application = _get_global_client().get_serve_details()["applications"]["default"]
    ((name, details),) = application["deployments"].items()
    replica = details["replicas"][0]["pid"]
    print(json.dumps([name, replica, [pid for pid, _ in descendants(replica)]]), flush=True)
    sys.stdin.readline()
"""


def program(port):
    """Return the example with another port, and held at its end."""
    source = EXAMPLE.read_text()
    assert source.endswith(ENDING)
    for old, new in [
        (ENDING, INSTEAD),
        ("localhost:8000", f"localhost:{port}"),
        ("    serve.run(app)\n", f"    serve.start(http_options=dict(port={port}))\n    serve.run(app)\n"),
    ]:
        assert source.count(old) == 1
        source = source.replace(old, new)
    return source


@pytest.mark.ray
@pytest.mark.engine
def test_the_serving_program_runs_and_leaves_nothing_behind():
    # What the program does not say, the engine must find out by itself.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CPU_", "OMP_NUM", "RAY_SERVE_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", program(free_port())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        try:
            answer, line = "", ""
            for line in process.stdout:
                if line.startswith('["'):
                    break
                answer += line
            assert "Paris" in answer
            deployment, replica, engine = json.loads(line)
            assert deployment == "vLLM:qwen-0_5b"
            assert len(engine) >= 4  # the watcher, the engine's core, two workers
            os.kill(replica, 9)
            wait_until(lambda: not any(map(alive, engine)), timeout=20)
        finally:
            process.terminate()
