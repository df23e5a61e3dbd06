"""One vLLM engine for the whole folder, on the demo model, in float32 so that ranks cannot change an answer."""

import os

import pytest
import pytest_asyncio
from vllm_settings import CPU_ENVIRONMENT, SETTINGS

from trunnion_demo import adapter_paths, model_path
from trunnion_vllm.config import VLLMConfig


@pytest.fixture(scope="session")
def vllm_environment():
    """Set vLLM's variables before its first import; those of the caller win."""
    patch = pytest.MonkeyPatch()
    for name, value in CPU_ENVIRONMENT.items():
        if name not in os.environ:
            patch.setenv(name, value)
    yield CPU_ENVIRONMENT
    patch.undo()


@pytest.fixture(scope="session")
def model():
    """Return the path of a model."""
    return str(model_path())


@pytest.fixture(scope="session")
def adapters():
    """Return adapters of that model, name to path."""
    return {name: str(path) for name, path in adapter_paths().items()}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(vllm_environment, model, adapters):
    """Start the engine that every test shares."""
    from trunnion_vllm.engine import VLLMEngine

    engine = VLLMEngine(model, VLLMConfig(**SETTINGS, adapters=adapters, kv_events=True))
    engine.info = await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(scope="session")
def tokenizer(engine):
    """Return the model's tokenizer as a user would load it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(engine.info.tokenizer.path)
