"""Hold the transformers engine to the contract."""

import pytest

from trunnion import engine_spec
from trunnion.testing import EngineSuite

from .material import ADAPTERS, EFFECTS, MODEL, PROMPT

pytestmark = pytest.mark.engine
SETTINGS = {"adapters": ADAPTERS, "max_model_len": 1024, "dtype": "float32"}


class TestTransformers(EngineSuite):
    plugin = "transformers"
    prompt = PROMPT
    adapters = ADAPTERS
    effects = EFFECTS

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("transformers", MODEL, SETTINGS)

    @pytest.fixture(scope="class")
    @classmethod
    def narrow(cls):
        return engine_spec("transformers", MODEL, {**SETTINGS, "max_requests_per_batch": 1})

    @pytest.fixture(scope="class")
    @classmethod
    def embedding(cls):
        return engine_spec("transformers", MODEL, {"runner": "embed", "dtype": "float32"})
