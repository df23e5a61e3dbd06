"""What the tests of batches share."""

import pytest

from trunnion import GenerateRequest, PipelineSpec, SamplingParams, TextPrompt, engine_spec


@pytest.fixture
def spec():
    def make(**config):
        return PipelineSpec(engine=engine_spec("sim", config=config))

    return make


@pytest.fixture
def ask():
    def make(text, **sampling):
        return GenerateRequest(
            prompt=TextPrompt(text=text), sampling=SamplingParams(max_tokens=4, **sampling), delivery="final"
        )

    return make
