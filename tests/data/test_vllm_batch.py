"""Batches on real vLLM with the demo model: a program written for ray.data.llm as it stands, and adapters by row."""

import ast
import runpy
import sys
import time
from pathlib import Path

import psutil
import pytest

from trunnion_demo import PROMPTS, adapter_paths, model_path
from trunnion_ray.data import ProcessorConfig, build_processor

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(400)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "batch.py"


def engines():
    """Return the engine processes that descend from this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_until_gone():
    deadline = time.monotonic() + 20
    while engines():
        assert time.monotonic() < deadline, engines()
        time.sleep(0.2)


@pytest.fixture
def eager(monkeypatch):
    """Skip compilation, which would take most of the time; the program says nothing about it."""
    import trunnion_ray.data as mirror

    class Eager(mirror.vLLMEngineProcessorConfig):
        def __init__(self, **fields):
            fields["engine_kwargs"] = {**fields["engine_kwargs"], "enforce_eager": True}
            super().__init__(**fields)

    monkeypatch.setattr(mirror, "vLLMEngineProcessorConfig", Eager)


def test_a_program_for_rays_own_module_runs_as_it_stands(ray_session, eager, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    row = ast.literal_eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert row["answer"].count("\n") == 2, row["answer"]  # a haiku has three lines
    assert row["answer"] == row["generated_text"]
    assert row["item"] == "Start of the haiku is: Complete this for me..."
    assert row["__inference_error__"] == ""
    wait_until_gone()


def test_rows_name_their_adapters_and_bad_rows_stay(ray_session):
    adapters = {name: str(path) for name, path in adapter_paths().items()}
    config = ProcessorConfig(
        engine="vllm",
        model=str(model_path()),
        config={"adapters": adapters, "enforce_eager": True, "max_model_len": 1024},
        sampling={"temperature": 0, "max_tokens": 32},
    )
    asked = PROMPTS[0]
    models = [None, *adapters, "nobody"]
    items = [{"id": index, "messages": list(asked.messages), "model": model} for index, model in enumerate(models)]
    rows = build_processor(config)(ray_session.data.from_items(items)).take_all()
    by_model = {row["model"]: row for row in rows}
    texts = {name: by_model[name]["generated_text"] for name in (None, *adapters)}
    assert texts == {None: asked.expected, **{name: asked.adapted[name] for name in adapters}}
    assert by_model["nobody"]["error"]["type"] == "AdapterNotFound"
    wait_until_gone()
