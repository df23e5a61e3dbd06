"""Rows with images go through Ray Data to a real vision model: another image, another answer."""

import base64
import io
import json
import sys
from pathlib import Path

import pytest

from trunnion_demo import model_path
from trunnion_ray.data import ProcessorConfig, build_processor
from vllm_cpu import VLLM_CPU

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(400)]


def picture(colour):
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("RGB", (40, 28), colour).save(file, format="PNG")
        return file.getvalue()


def test_rows_with_images(ray_session, tmp_path, monkeypatch):
    import ray

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "vllm"))
    import tiny_vision

    path = tiny_vision.make(tmp_path / "tiny", str(model_path()))
    sys.modules.pop("tiny_vision")
    config = ProcessorConfig(
        engine="vllm",
        model=str(path),
        config={"enforce_eager": True, "max_model_len": 256, "dtype": "float32"},
        sampling={"temperature": 0.0, "max_tokens": 4, "logprobs": 1, "ignore_eos": True},
        runtime_env={"env_vars": VLLM_CPU},
    )
    colours = ["red", "blue", "red", "#00ff00"]
    rows = [{"colour": colour, "image": picture(colour)} for colour in colours] + [{"colour": "none", "image": b"no"}]

    def ask(row):
        url = "data:image/png;base64," + base64.b64encode(row["image"]).decode()
        parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        return {"messages": [{"role": "user", "content": parts}]}

    made = build_processor(config, ask)(ray.data.from_items(rows)).take_all()
    assert [row["colour"] for row in made] == [*colours, "none"]
    *seen, broken = made
    assert not any(row["error"] for row in seen)
    assert broken["error"]["param"].endswith("image_url.url")
    said = [[one["logprob"] for one in json.loads(row["choices"])[0]["logprobs"]] for row in seen]
    assert said[0] == pytest.approx(said[2], abs=1e-4)
    for other in (1, 3):
        assert said[0] != pytest.approx(said[other], abs=1e-4)
