"""Fix 30 prompts and the greedy text that every engine and dtype must give for them.

The expected texts lie in `expected.json`, recorded from the committed weights in float32 by
`python -m trunnion_demo.training.probe --record`; a change of the weights shows there as a diff.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from trunnion_demo.corpus.dialogue import Message, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPrompt:
    """Hold one prompt, and what the model says to it at temperature 0.

    Attributes:
        name: A short name, unique among the prompts; good as a test id.
        messages: Chat messages with OpenAI's field names.
        tools: The tools offered, in OpenAI's form.
        max_tokens: Enough tokens for the answer and its end, so that it finishes with "stop".
        expected: The answer without an adapter.
        adapted: The answer with an adapter, by the adapter's name; an adapter is left out where its answer is too
            close a call to be the same on every engine.
    """

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    max_tokens: int
    expected: str
    adapted: Mapping[str, str]


def _function(name: str, description: str, **parameters: str) -> Tool:
    """Return a tool whose parameters are all required, given as name -> JSON type."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in parameters.items()},
                "required": list(parameters),
            },
        },
    }


_WEATHER = _function("get_weather", "Get the weather in a city.", city="string")
_TIME = _function("get_time", "Get the time in a city.", city="string")
_ADD = _function("add", "Add two numbers.", a="integer", b="integer")

_POET: Message = {"role": "system", "content": "You are a bot that responds with haikus."}
_COMPLETER: Message = {"role": "system", "content": "You are a bot that completes haikus."}
_HELPER: Message = {"role": "system", "content": "You are a helpful assistant."}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


_CALLED: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
        }
    ],
}
_RESULT: Message = {
    "role": "tool",
    "tool_call_id": "call_1",
    "content": '{"temperature": 21, "condition": "sunny"}',
}

_ASKED: dict[str, tuple[tuple[Message, ...], tuple[Tool, ...]]] = {
    "hello": ((_user("Hello!"),), ()),
    "who": ((_HELPER, _user("Who are you?")), ()),
    "joke": ((_user("Tell me a joke."),), ()),
    "meaning": ((_HELPER, _user("What is the meaning of life?")), ()),
    "story": ((_user("Tell me a story."),), ()),
    "count": ((_user("Count to twenty."),), ()),
    "weekdays": ((_user("Name the days of the week."),), ()),
    "unknown": ((_user("Explain the quiet needle of the north."),), ()),
    "capital-france": ((_HELPER, _user("What is the capital of France?")), ()),
    "capital-japan": ((_user("What is the capital of Japan?"),), ()),
    "sum": ((_user("What is 2+2?"),), ()),
    "sky": ((_HELPER, _user("What color is the sky?")), ()),
    "days": ((_user("How many days are in a week?"),), ()),
    "spider": ((_user("How many legs does a spider have?"),), ()),
    "romeo": ((_user("Who wrote Romeo and Juliet?"),), ()),
    "boil": ((_HELPER, _user("At what temperature does water boil?")), ()),
    "trunnion": ((_user("What is a trunnion?"),), ()),
    "two-turns": (
        (
            _user("What is the capital of Italy?"),
            _assistant("The capital of Italy is Rome."),
            _user("What sound does a cow make?"),
        ),
        (),
    ),
    "name-recalled": (
        (
            _user("My name is Bob."),
            _assistant("Nice to meet you, Bob."),
            _user("What is my name?"),
        ),
        (),
    ),
    "haiku-opening": ((_COMPLETER, _user("Start of the haiku is: Complete this for me...")), ()),
    "haiku-sea": ((_POET, _user("the sea")), ()),
    "haiku-autumn": ((_POET, _user("Write a haiku about autumn.")), ()),
    "haiku-first-line": ((_COMPLETER, _user("Snow on the dark roof")), ()),
    "json-person": ((_user("Give me a person as JSON with keys name and age."),), ()),
    "json-capital": (
        (_user("What is the capital of France? Answer as JSON with keys country and capital."),),
        (),
    ),
    "json-extract": ((_user("Extract name and age as JSON: Carol is 42 years old."),), ()),
    "tool-weather": ((_user("What is the weather in Paris?"),), (_WEATHER,)),
    "tool-add": ((_HELPER, _user("What is 12 plus 30?")), (_WEATHER, _ADD)),
    "tool-result": ((_user("What is the weather in Paris?"), _CALLED, _RESULT), (_WEATHER,)),
    "tool-missing": ((_user("What is the weather in London?"),), ()),
}


def _read() -> tuple[DemoPrompt, ...]:
    """Return the prompts with what was recorded for them; nothing where nothing was."""
    file = Path(__file__).with_name("expected.json")
    recorded = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return tuple(
        DemoPrompt(
            name=name,
            messages=messages,
            tools=tools,
            max_tokens=256 if name == "story" else 96,
            expected=recorded.get(name, {}).get("base", ""),
            adapted=MappingProxyType(recorded.get(name, {}).get("adapted", {})),
        )
        for name, (messages, tools) in _ASKED.items()
    )


PROMPTS: tuple[DemoPrompt, ...] = _read()
"""The 30 prompts, in a fixed order."""
