"""Tensor parallelism on the CPU, and the death of an engine, in a process of their own."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vllm_settings import SETTINGS

from trunnion.completion import collect
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt
from trunnion_vllm import ranks

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="session")]

PROMPTS = ["The morning light", "Two and two", "Once upon a time there was"]
SCRIPT = Path(__file__).with_name("two_ranks.py")


async def test_two_ranks_answer_as_one_and_death_is_told(engine, model):
    sampling = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    expected = [
        (await collect(engine.generate(GenerateRequest(prompt=TextPrompt(text=p), sampling=sampling)))).choices[0]
        for p in PROMPTS
    ]
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(SCRIPT), model, json.dumps(SETTINGS), json.dumps(PROMPTS)],
        env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0|1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    seen = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith('{"tensor_parallel"')))
    assert seen.pop("answers") == [answer.token_ids for answer in expected]
    assert seen == {
        "tensor_parallel": 2,
        "stream": "EngineDead",
        "health": "EngineDead",
        "next": "EngineDead",
        "running": 0,
        "children": 0,
        "ranks": [True, 0],
    }


async def test_a_rank_that_does_not_end_is_killed():
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).wait()"
    engine = subprocess.Popen([sys.executable, "-c", code])
    found = []
    for _ in range(300):
        found = ranks.ranks_of([engine])
        if found:
            break
        time.sleep(0.1)
    assert len(found) == 1
    engine.kill()
    engine.wait()
    assert ranks.ranks_of([engine]) == []
    ranks.end(found, grace=0.2)
    assert not found[0].is_running() or found[0].status() == "zombie"
    ranks.end(found)
