"""Hold the engine to the contract with Trunnion's own kit: once by the file's tokenizer, once by the stages'."""

from __future__ import annotations

import pytest
from trunnion import EngineSpec, engine_spec
from trunnion.testing import EngineSuite
from trunnion_demo import PROMPTS, adapter_paths, model_path

PROMPT = next(prompt for prompt in PROMPTS if prompt.name == "who").messages
ADAPTERS = {name: str(path) for name, path in adapter_paths().items()}
SETTINGS = {"adapters": ADAPTERS, "n_threads": 1}


class TestGGUFAlone(EngineSuite):
    plugin = "llamacpp"
    prompt = PROMPT
    adapters = ADAPTERS
    tokenizer = str(model_path())
    map_error = "trunnion_llamacpp.errors:map_error"

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, models) -> EngineSpec:
        return engine_spec("llamacpp", models.alone, SETTINGS)

    @pytest.fixture(scope="class")
    @classmethod
    def narrow(cls, models) -> EngineSpec:
        return engine_spec("llamacpp", models.alone, {"n_seq_max": 1})


class TestTokenizerBeside(EngineSuite):
    plugin = "llamacpp"
    prompt = PROMPT
    adapters = ADAPTERS

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, models) -> EngineSpec:
        return engine_spec("llamacpp", models.beside, SETTINGS)

    @pytest.fixture(scope="class")
    @classmethod
    def narrow(cls, models) -> EngineSpec:
        return engine_spec("llamacpp", models.beside, {"n_seq_max": 1})
