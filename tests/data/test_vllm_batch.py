"""Batches on real vLLM with the demo model: a program written for ray.data.llm as it stands, and adapters by row."""

import time

import psutil
import pytest

from trunnion_demo import PROMPTS, adapter_paths, model_path
from trunnion_ray.data import ProcessorConfig, build_processor

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(400)]

# Nothing but the import line differs from the program for ray.data.llm.
PROGRAM = """
import ray
from trunnion_ray.data import vLLMEngineProcessorConfig, build_llm_processor

config = vLLMEngineProcessorConfig(
    model=PATH,
    engine_kwargs={"enable_chunked_prefill": True, "max_num_batched_tokens": 4096, "max_model_len": 1024},
    concurrency=1,
    batch_size=64,
)
processor = build_llm_processor(
    config,
    preprocess=lambda row: dict(
        messages=[
            {"role": "system", "content": "You are a bot that responds with haikus."},
            {"role": "user", "content": row["item"]},
        ],
        sampling_params=dict(temperature=0.3, max_tokens=250),
    ),
    postprocess=lambda row: dict(answer=row["generated_text"], **row),
)
ds = ray.data.from_items(["Start of the haiku is: Complete this for me..."])
ds = processor(ds)
ds.show(limit=1)
"""


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


def test_a_program_for_rays_own_module_runs_as_it_stands(ray_session, eager, capsys):
    names = {"PATH": str(model_path())}
    exec(compile(PROGRAM, "program", "exec"), names)
    shown = capsys.readouterr().out
    row = names["ds"].take(1)[0] if "answer" not in shown else eval(shown.strip().splitlines()[-1])
    assert row["answer"].count("\n") == 2, row["answer"]  # a haiku has three lines
    assert row["answer"] == row["generated_text"]
    assert row["item"] == "Start of the haiku is: Complete this for me..."
    assert row["__inference_error__"] == "" if "__inference_error__" in row else True
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
