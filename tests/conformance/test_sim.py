"""Hold the simulated engine to the contract: with words of its own, and with a real tokenizer's ids."""

import pytest

from trunnion import engine_spec
from trunnion.testing import EngineSuite

from .material import MODEL

pytestmark = pytest.mark.slow
SETTINGS = {"tpot": 0.002, "eos_after": 30, "adapters": ["pirate", "loud"]}
ADAPTERS = {"pirate": "sim://pirate", "loud": "sim://loud"}


class TestSim(EngineSuite):
    plugin = "sim"
    adapters = ADAPTERS

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("sim", None, SETTINGS)

    @pytest.fixture(scope="class")
    @classmethod
    def narrow(cls):
        return engine_spec("sim", None, {**SETTINGS, "max_num_seqs": 1})


class TestSimOfTokens(EngineSuite):
    plugin = "sim"
    adapters = ADAPTERS

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("sim", None, {**SETTINGS, "tokenizer": MODEL})

    @pytest.fixture(scope="class")
    @classmethod
    def narrow(cls):
        return engine_spec("sim", None, {**SETTINGS, "tokenizer": MODEL, "max_num_seqs": 1})
