"""Real engines on a model and adapters that lie on a web server."""

import io
import os
import tarfile
from pathlib import Path

import pytest

import trunnion as t
from trunnion_demo import PROMPTS, adapter_paths, model_path

pytestmark = pytest.mark.engine
ENGINES = {"vllm": {"enforce_eager": True, "max_model_len": 512, "dtype": "float32"}, "transformers": {}}
VLLM = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}


def packed(folder):
    """Return an archive of a folder, what lies in folders of its own left out."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(Path(folder).iterdir()):
            if path.is_file():
                tar.add(path.resolve(), f"model/{path.name}")
    return out.getvalue()


@pytest.mark.parametrize("name", ENGINES)
async def test_model_and_adapters_come_from_elsewhere(name, web, tmp_path, monkeypatch):
    plugin = {record.name: record for record in t.get_registry().plugins() if record.kind == "engine"}[name]
    if plugin.state != "ok":
        pytest.skip(plugin.reason)
    for variable, value in {**VLLM, "TRUNNION_CACHE": str(tmp_path / "cache")}.items():
        if variable == "TRUNNION_CACHE" or variable not in os.environ:
            monkeypatch.setenv(variable, value)
    web.files["/model.tar"] = packed(model_path())
    for adapter, path in adapter_paths().items():
        web.files[f"/{adapter}.tar"] = packed(path)
    prompt = next(one for one in PROMPTS if len(one.adapted) == 2 and not one.tools)
    first, second = prompt.adapted

    async def said(pipeline, adapter):
        sampling = t.SamplingParams(temperature=0.0, max_tokens=prompt.max_tokens)
        messages = t.MessagesPrompt(messages=prompt.messages)
        done = await pipeline.complete(t.GenerateRequest(prompt=messages, sampling=sampling, adapter=adapter))
        return done.text

    config = {**ENGINES[name], "adapters": {first: f"{web.url}/{first}.tar"}}
    if name == "vllm":
        config["engine_kwargs"] = {"max_loras": 2}
    async with t.open_pipeline(t.engine_spec(name, f"{web.url}/model.tar", config)) as pipeline:
        assert await said(pipeline, None) == prompt.expected
        assert await said(pipeline, first) == prompt.adapted[first]
        await pipeline.engine.load_adapter(t.AdapterRef(name="hot", path=f"{web.url}/{second}.tar"))
        assert await said(pipeline, "hot") == prompt.adapted[second]
        stages = {stage.name: stage for stage in pipeline.startup.stages}
        assert stages["fetch model"].seconds > 0
        if name == "vllm":
            parts = [part.name for part in stages["start engine"].parts]
            assert parts == ["import vllm", "load model", "set up"]
    assert {path: count for path, count in web.gets.items() if count != 1} == {}
