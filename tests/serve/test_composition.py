"""A program over models is served as one model: text and events stream out, and what it used is summed."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trunnion
from trunnion import GenerateRequest, MessagesPrompt, SamplingParams, collect
from trunnion.errors import ConfigError, InternalError, InvalidArgument, UnsupportedFeature
from trunnion_http import PipelineModel
from trunnion_ray.serve import compose
from trunnion_ray.serve.composition import ComposedModel

from .conftest import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "composition.py"
ASK = GenerateRequest(
    prompt=MessagesPrompt(messages=({"role": "user", "content": "Hi"},)), sampling=SamplingParams(max_tokens=5)
)


class Local(PipelineModel):
    """A model of this process, where programs expect one behind a handle."""

    closed = 0

    async def generate_and_tell(self, request):
        try:
            async with contextlib.aclosing(self.pipeline.generate(request)) as events:
                async for event in events:
                    yield event
        finally:
            Local.closed += 1


@pytest.fixture
async def model():
    Local.closed = 0
    async with trunnion.open_pipeline(trunnion.engine_spec("sim", "sim")) as pipeline:
        local = Local("a", pipeline)
        local.generate = local.generate_and_tell
        yield local


async def answers(program, model, request=ASK):
    return await collect(ComposedModel("m", program, [model]).generate(request))


async def test_text_and_events_become_one_answer(model):
    async def program(request, models):
        yield "before "
        whole = await models["a"].complete(request)
        yield whole.text
        async for event in models["a"].generate(request):
            yield event
        yield " after"

    made = await answers(program, model)
    alone = await collect(model.generate(ASK))
    assert made.text == f"before {alone.text}{alone.text} after"
    assert made.choices[0].finish_reason == "length"
    assert made.usage.completion_tokens == 2 * alone.usage.completion_tokens
    assert made.usage.prompt_tokens == 2 * alone.usage.prompt_tokens


async def test_scores_labels_and_vectors_are_counted(model):
    async def program(request, models):
        voice = models["a"]
        await voice.score("x", ["x", "y"])
        await voice.classify([request.prompt])
        await voice.embed([request.prompt])
        yield "done"

    made = await answers(program, model)
    assert made.text == "done"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage.prompt_tokens > 3


async def test_an_error_of_a_model_is_the_answers(model):
    async def program(request, models):
        yield "so far"
        raise InvalidArgument("no", param="messages")

    with pytest.raises(InvalidArgument):
        await answers(program, model)


async def test_what_is_neither_text_nor_event_is_refused(model):
    async def program(request, models):
        yield 7

    with pytest.raises(InternalError, match="yielded int"):
        await answers(program, model)


async def test_n_is_refused(model):
    async def program(request, models):
        yield "x"

    with pytest.raises(UnsupportedFeature) as caught:
        await answers(program, model, GenerateRequest(prompt=ASK.prompt, sampling=SamplingParams(n=2)))
    assert caught.value.param == "n"


async def test_who_leaves_ends_what_the_program_does(model):
    async def program(request, models):
        async with contextlib.aclosing(models["a"].generate(request)) as events:
            async for event in events:
                yield event

    async with contextlib.aclosing(ComposedModel("m", program, [model]).generate(ASK)) as events:
        async for _ in events:
            break
    assert Local.closed == 1
    assert model.load().running == 0


async def program_of(request, models):
    yield "x"


async def no_program(request, models):
    return "x"


@pytest.mark.parametrize(
    ("name", "program", "models", "message"),
    [
        ("m", program_of, "aa", "two models are named 'a'"),
        ("a", program_of, "a", "both named 'a'"),
        ("m", no_program, "a", "must be an async generator"),
        ("m", lambda request, models: 1, "a", "must be an async generator"),
    ],
)
def test_what_cannot_work_is_refused_at_once(name, program, models, message):
    with pytest.raises(ConfigError, match=message):
        compose(name, program, [{"name": model, "engine": "sim"} for model in models])


@pytest.mark.ray
def test_the_example_runs(tmp_path):
    port = str(free_port())
    source = EXAMPLE.read_text()
    assert source.count("8000") == 2
    file = tmp_path / "example.py"
    file.write_text(source.replace("8000", port))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_SERVE_")}
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    done = subprocess.run(
        [sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(64 tokens, drafts included)" in done.stdout
    assert done.stdout.lstrip().startswith(("[prose] ", "[verse] "))
