"""One transformers engine for the whole folder, on the demo model in float32."""

import pytest
import pytest_asyncio
from hf_lab import config

from trunnion_demo import adapter_paths, model_path


@pytest.fixture(scope="session")
def model():
    """Return the path of a model."""
    return str(model_path())


@pytest.fixture(scope="session")
def adapters():
    """Return adapters of that model, name to path."""
    return {name: str(path) for name, path in adapter_paths().items()}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(model, adapters):
    """Start the engine that most tests share."""
    from trunnion_transformers.engine import TransformersEngine

    engine = TransformersEngine(model, config(adapters=adapters))
    engine.info = await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(scope="session")
def tokenizer(engine):
    """Return the model's tokenizer as a user would load it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(engine.info.tokenizer.path)
