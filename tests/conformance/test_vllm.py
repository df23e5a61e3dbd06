"""Hold the vLLM engine to the contract, on the CPU build."""

import pytest

from trunnion import engine_spec
from trunnion.testing import EngineSuite

from .material import ADAPTERS, EFFECTS, MODEL, PROMPT

pytestmark = pytest.mark.engine
PLAIN = {"max_model_len": 1024, "enforce_eager": True, "dtype": "float32"}
SETTINGS = {**PLAIN, "adapters": ADAPTERS, "engine_kwargs": {"max_loras": 3}}


class TestVLLM(EngineSuite):
    plugin = "vllm"
    map_error = "trunnion_vllm.errors:map_error"
    prompt = PROMPT
    adapters = ADAPTERS
    effects = EFFECTS

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("vllm", MODEL, SETTINGS)

    @pytest.fixture(scope="class")
    @classmethod
    def embedding(cls):
        return engine_spec("vllm", MODEL, {**PLAIN, "runner": "pooling"})
