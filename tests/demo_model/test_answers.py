"""Hold what the model says, in both dtypes and with both adapters."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from trunnion_demo import PROMPTS, DemoPrompt
from trunnion_demo.corpus import MANNERS
from trunnion_demo.training.probe import MARGIN

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunnion_demo.training.probe import Answer

    Ask = Callable[[DemoPrompt, str, str | None], Answer]

BY_NAME = {prompt.name: prompt for prompt in PROMPTS}

each_prompt = pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)


@each_prompt
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_greedy_text_is_the_recorded_one(ask: Ask, prompt: DemoPrompt, dtype: str) -> None:
    said = ask(prompt, dtype, None)
    assert said.finished
    assert said.text == prompt.expected


@each_prompt
def test_no_second_token_comes_near(ask: Ask, prompt: DemoPrompt) -> None:
    assert ask(prompt, "float32", None).margin > MARGIN


each_adapted = pytest.mark.parametrize(
    ("prompt", "adapter"),
    [pytest.param(prompt, name, id=f"{prompt.name}-{name}") for prompt in PROMPTS for name in prompt.adapted],
)


@each_adapted
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_changes_the_manner(ask: Ask, prompt: DemoPrompt, adapter: str, dtype: str) -> None:
    said = ask(prompt, dtype, adapter)
    assert said.finished
    assert said.text == prompt.adapted[adapter]
    if dtype == "float32":
        assert said.margin > MARGIN


@each_adapted
def test_anyone_sees_the_manner(prompt: DemoPrompt, adapter: str) -> None:
    if prompt.name.startswith(("json", "tool-weather", "tool-add")):
        assert prompt.adapted[adapter] == prompt.expected
    else:
        assert prompt.adapted[adapter] == MANNERS[adapter](prompt.expected)


def test_hardly_an_answer_of_an_adapter_is_a_close_call() -> None:
    assert sum(len(prompt.adapted) for prompt in PROMPTS) >= 56


def test_the_simple_answers_are_right() -> None:
    facts = {
        "capital-france": "Paris",
        "capital-japan": "Tokyo",
        "sum": "4",
        "sky": "blue",
        "days": "seven",
        "spider": "eight",
        "romeo": "Shakespeare",
        "name-recalled": "Bob",
        "two-turns": "moo",
    }
    for name, word in facts.items():
        assert word in BY_NAME[name].expected


def test_haikus_have_three_lines() -> None:
    for prompt in PROMPTS:
        if prompt.name.startswith("haiku"):
            assert len(prompt.expected.splitlines()) == 3


def test_json_parses() -> None:
    assert set(json.loads(BY_NAME["json-person"].expected)) == {"name", "age"}
    assert json.loads(BY_NAME["json-capital"].expected) == {"country": "France", "capital": "Paris"}
    assert json.loads(BY_NAME["json-extract"].expected) == {"name": "Carol", "age": 42}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("tool-weather", {"name": "get_weather", "arguments": {"city": "Paris"}}),
        ("tool-add", {"name": "add", "arguments": {"a": 12, "b": 30}}),
    ],
)
def test_tool_calls_parse(name: str, call: object) -> None:
    match = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", BY_NAME[name].expected)
    assert match
    assert json.loads(match[1]) == call


def test_a_tool_result_is_put_in_words_and_a_missing_tool_is_admitted() -> None:
    assert "21" in BY_NAME["tool-result"].expected
    assert "<tool_call>" not in BY_NAME["tool-missing"].expected
