"""Describe the tools of the corpus the many ways a caller might."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from trunnion_demo.corpus.dialogue import JsonValue, Tool

DISTRACTORS = ("search", "send_email", "get_stock_price")

_DESCRIPTIONS = {
    "get_weather": (
        "Get the weather in a city.",
        "Get the current weather",
        "Get the current weather for a location.",
        "Return the weather of a place.",
        "Look up the weather",
    ),
    "get_time": ("Get the time in a city.", "Get the current time", "Return the local time."),
    "add": ("Add two numbers.", "Add two integers", "Return the sum of a and b."),
    "search": ("Search the web.", "Search for a text"),
    "send_email": ("Send an email.", "Send a message by email"),
    "get_stock_price": ("Get the price of a stock.", "Look up a stock"),
}

_PARAMETERS: dict[str, tuple[tuple[tuple[str, str], ...], ...]] = {
    "get_weather": ((("city", "string"),), (("city", "string"),), (("location", "string"),)),
    "get_time": ((("city", "string"),), (("city", "string"),), (("location", "string"),)),
    "add": (
        (("a", "integer"), ("b", "integer")),
        (("a", "number"), ("b", "number")),
        (("x", "integer"), ("y", "integer")),
    ),
    "search": ((("query", "string"),),),
    "send_email": ((("to", "string"), ("body", "string")),),
    "get_stock_price": ((("symbol", "string"),),),
}

_HINTS = ("The city", "Name of the city", "The city, e.g. Paris", "City and state")


def describe(rng: Random, name: str) -> Tool:
    """Return one tool in OpenAI's form; the wording, extras and order of keys vary."""
    properties: dict[str, JsonValue] = {}
    keys = rng.choice(_PARAMETERS[name])
    for key, kind in keys:
        schema: dict[str, JsonValue] = {"type": kind}
        if kind == "string" and rng.random() < 0.3:
            schema["description"] = rng.choice(_HINTS)
        properties[key] = schema
    if name == "get_weather" and rng.random() < 0.2:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parameters: dict[str, JsonValue] = {"type": "object", "properties": properties}
    if rng.random() < 0.7:
        parameters["required"] = [key for key, _ in keys]
    function: dict[str, JsonValue] = {"name": name}
    if rng.random() < 0.85:
        function["description"] = rng.choice(_DESCRIPTIONS[name])
    function["parameters"] = parameters
    if rng.random() < 0.1:
        function = dict(sorted(function.items()))
    return {"type": "function", "function": function}


def offered(rng: Random, name: str) -> tuple[Tool, ...]:
    """Return the tool `name`, in one of three cases among others."""
    names = {name}
    while rng.random() < 0.35 and len(names) < 3:
        names.add(rng.choice(sorted(_DESCRIPTIONS)) if name not in DISTRACTORS else name)
        if name in DISTRACTORS:
            break
    ordered = sorted(names)
    rng.shuffle(ordered)
    return tuple(describe(rng, each) for each in ordered)
