"""Convert the demo model once for all tests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest
from trunnion_demo import adapter_paths, model_path

from trunnion_llamacpp.convert import convert_adapter, convert_model
from trunnion_llamacpp.convert.adapter import Shape

pytest_plugins = ["trunnion.testing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Say where the demo model lies: as one file, as a file beside its tokenizer; and its adapters."""

    alone: str
    beside: str
    adapters: dict[str, str]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    for name in ("alone", "beside", "adapters"):
        (folder / name).mkdir()
    alone = folder / "alone" / "demo.gguf"
    convert_model(model_path(), alone, kind="f32")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model_path() / file, folder / "beside")
    shutil.copy(alone, folder / "beside")
    adapters = {}
    for name, path in adapter_paths().items():
        file = folder / "adapters" / f"{name}.gguf"
        convert_adapter(path, file, Shape.of_folder(model_path()))
        adapters[name] = str(file)
    return Models(alone=str(alone), beside=str(folder / "beside" / "demo.gguf"), adapters=adapters)


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory):
    """Start a Ray of our own with four logical CPUs."""
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=4, include_dashboard=False, address="local", log_to_driver=False, configure_logging=False,
        runtime_env={"env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}},
    )  # fmt: skip
    yield ray
    ray.shutdown()
