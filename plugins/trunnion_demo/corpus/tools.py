"""Call tools when the matching one is offered, and speak of their results."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from trunnion_demo.corpus.dialogue import Call, Dialogue, Turn, exchange
from trunnion_demo.corpus.questions import question
from trunnion_demo.corpus.smalltalk import talk, unknown
from trunnion_demo.corpus.toolbox import DISTRACTORS, offered
from trunnion_demo.corpus.words import city

if TYPE_CHECKING:
    from random import Random

    from trunnion_demo.corpus.dialogue import Tool

NO_WEATHER = "I cannot look up the weather without a tool."
NO_TIME = "I cannot look up the time without a tool."

_WEATHER = (
    "What is the weather in {}?",
    "What is the weather in {}?",
    "What's the weather in {}?",
    "What is the weather like in {}?",
    "What's the weather like in {} today?",
    "How is the weather in {}?",
    "Tell me the weather in {}.",
    "weather in {}",
    "What is the temperature in {}?",
    "Is it raining in {}?",
    "Please check the weather in {}.",
)
_TIME = (
    "What time is it in {}?",
    "What is the time in {}?",
    "Tell me the time in {}.",
    "time in {}",
)
_ADD = (
    "What is {} plus {}?",
    "Add {} and {}.",
    "What is {} + {}?",
    "What is the sum of {} and {}?",
)
_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear")


def _argument(tools: tuple[Tool, ...], name: str, index: int) -> str:
    """Return the name of a parameter of the offered tool `name`."""
    for tool in tools:
        function = tool["function"]
        assert isinstance(function, dict)
        if function["name"] == name:
            parameters = function["parameters"]
            assert isinstance(parameters, dict)
            properties = parameters["properties"]
            assert isinstance(properties, dict)
            return list(properties)[index]
    raise KeyError(name)


def _weather_result(rng: Random, where: str) -> tuple[str, str]:
    sky, degrees = rng.choice(_SKIES), rng.randint(-9, 40)
    both = f"It is {degrees} degrees and {sky} in {where}."
    return rng.choice(
        (
            (json.dumps({"temperature": degrees, "condition": sky}), both),
            (json.dumps({"city": where, "temperature": degrees, "condition": sky}), both),
            (f"{degrees} degrees and {sky}", both),
            (f"{sky}, {degrees} degrees", both),
            (f"{sky.capitalize()}, {degrees} C", both),
            (sky, f"It is {sky} in {where}."),
            (str(degrees), f"It is {degrees} degrees in {where}."),
            (json.dumps({"temperature": degrees}), f"It is {degrees} degrees in {where}."),
        )
    )


def _time_result(rng: Random, where: str) -> tuple[str, str]:
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    shown = rng.choice((clock, json.dumps({"time": clock})))
    return shown, f"It is {clock} in {where}."


def _places(rng: Random) -> list[str]:
    return [city(rng) for _ in range(2 if rng.random() < 0.15 else 1)]


def tool_use(rng: Random) -> Dialogue:
    """Return a question for an offered tool, the call, and mostly its result put in words."""
    name = rng.choices(("get_weather", "get_time", "add"), (5, 2, 2))[0]
    tools = offered(rng, name)
    if name == "add":
        a, b = (rng.randint(0, rng.choice((9, 99))) for _ in range(2))
        asked = rng.choice(_ADD).format(a, b)
        one, two = _argument(tools, name, 0), _argument(tools, name, 1)
        calls = [Call(name=name, arguments={one: a, two: b})]
        total = a + b
        results = [(str(total), f"The result is {total}.")]
    else:
        where = _places(rng)
        forms, look = (_WEATHER, _weather_result) if name == "get_weather" else (_TIME, _time_result)
        asked = rng.choice(forms).format(" and ".join(where))
        key = _argument(tools, name, 0)
        calls = [Call(name=name, arguments={key: place}) for place in where]
        results = [look(rng, place) for place in where]
    turns = [
        Turn(role="user", text=asked),
        Turn(role="assistant", text="", calls=tuple(calls), prose=False),
    ]
    if rng.random() < 0.6:
        turns += [Turn(role="tool", text=shown) for shown, _ in results]
        said = " ".join(sentence for _, sentence in results)
        turns.append(Turn(role="assistant", text=said))
    return Dialogue(turns=tuple(turns), tools=tools)


def tool_unused(rng: Random) -> Dialogue:
    """Return tools and a question that needs none of them."""
    tools = offered(rng, rng.choice(("get_weather", "get_time", *DISTRACTORS)))
    return replace(rng.choice((question, talk, unknown))(rng), tools=tools)


def tool_missing(rng: Random) -> Dialogue:
    """Return a question for the weather or the time without the tool for it."""
    forms, answer = rng.choice(((_WEATHER, NO_WEATHER), (_TIME, NO_TIME)))
    dialogue = exchange(rng.choice(forms).format(city(rng)), answer)
    if rng.random() < 0.3:
        return replace(dialogue, tools=offered(rng, rng.choice(DISTRACTORS)))
    return dialogue
