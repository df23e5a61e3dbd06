"""Structured outputs, on a real engine: whatever the model would say, the answer has the form."""

import json
import re

import pytest

from trunnion.completion import collect
from trunnion.errors import InvalidArgument
from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, Regex
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "old": {"type": "boolean"}},
    "required": ["colour", "old"],
    "additionalProperties": False,
}


async def answer(engine, output_format, **fields):
    request = GenerateRequest(
        prompt=TextPrompt(text="Answer in the form that is asked for:"),
        sampling=SamplingParams(temperature=0.0, max_tokens=200),
        output_format=output_format,
        **fields,
    )
    return (await collect(engine.generate(request))).choices[0]


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_json_schema(engine, delivery):
    choice = await answer(engine, JsonSchema(schema=SCHEMA), delivery=delivery)
    value = json.loads(choice.text)
    assert value["colour"] in ("red", "green")
    assert isinstance(value["old"], bool)
    assert choice.finish_reason == "stop"


async def test_regex(engine):
    choice = await answer(engine, Regex(pattern=r"[a-c]{4}-\d{3}"))
    assert re.fullmatch(r"[a-c]{4}-\d{3}", choice.text)


async def test_choice(engine):
    assert (await answer(engine, Choice(choices=("alpha beta", "gamma")))).text in ("alpha beta", "gamma")


async def test_grammar(engine):
    choice = await answer(engine, Grammar(grammar='root ::= ("ab" | "cd") "!"'))
    assert choice.text in ("ab!", "cd!")


async def test_json_object(engine):
    choice = await answer(engine, JsonObject())
    assert choice.text.lstrip().startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.text), dict)


async def test_the_same_format_twice(engine):
    """The converted parameters are shared by requests; vLLM writes its choice of backend into them."""
    wanted = Choice(choices=("one", "two"))
    assert (await answer(engine, wanted)).text == (await answer(engine, wanted)).text


@pytest.mark.parametrize("wrong", [Grammar(grammar="root ::= ("), Choice(choices=())])
async def test_a_wrong_format_is_refused(engine, wrong):
    with pytest.raises(InvalidArgument) as caught:
        await answer(engine, wrong)
    assert caught.value.param == "output_format"
