"""Engines of several ranks and with speculation answer as one rank does, and take the processes they asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vllm_settings import CPU_ENVIRONMENT, SETTINGS

from trunnion_vllm.config import VLLMConfig
from trunnion_vllm.placement import resources

pytestmark = [pytest.mark.engine, pytest.mark.long]

PROMPTS = ["The morning light", "Two and two", "Once upon a time there was", "one two one two one two"]
SCRIPT = Path(__file__).with_name("run_shape.py")
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}


def run(model, bind, config):
    environment = {**CPU_ENVIRONMENT, **os.environ, "VLLM_CPU_OMP_THREADS_BIND": bind}
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), model, json.dumps(config), json.dumps(PROMPTS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("SEEN ")]
    assert lines, ran.stdout[-3000:] + ran.stderr[-5000:]
    seen = json.loads(lines[0].removeprefix("SEEN "))
    assert seen["left"] == []
    return seen


def workers(seen):
    """Return how many processes compute: the workers, or the engine core where it has none."""
    found = [title for title in seen["titles"] if "Worker" in title]
    return len(found) or len([title for title in seen["titles"] if "EngineCore" in title])


@pytest.fixture(scope="module")
def plain(model):
    return run(model, "nobind", SETTINGS)


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [
        ({"tensor_parallel_size": 2}, 2),
        ({"pipeline_parallel_size": 2, "enforce_eager": False}, 2),
        ({"data_parallel_size": 2, "kv_events": True}, 2),
        ({"engine_kwargs": {**SETTINGS["engine_kwargs"], "speculative_config": NGRAM}}, 1),
    ],
    ids=["tensor", "pipeline", "data", "ngram"],
)
def test_the_shape_changes_no_answer_and_takes_what_it_declares(model, plain, shape, ranks):
    config = {**SETTINGS, **shape}
    seen = run(model, "0|1" if ranks == 2 else "nobind", config)
    assert "error" not in seen, seen
    assert seen["answers"] == plain["answers"]
    (bundle,) = resources(VLLMConfig(**config, device="cpu")).bundles
    assert workers(seen) == bundle.cpu == ranks
    assert seen["data_parallel"] == shape.get("data_parallel_size", 1)
    assert seen.get("event_ranks", [0, 1]) == [0, 1]
