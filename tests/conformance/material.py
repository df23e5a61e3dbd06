"""What the suites of the engines that load the demo model have in common."""

from __future__ import annotations

import json

from trunnion import MessagesPrompt
from trunnion.testing import Ask
from trunnion_demo import PROMPTS, adapter_paths, model_path

MODEL = str(model_path())
ADAPTERS = {name: str(path) for name, path in adapter_paths().items()}
PLAIN = next(prompt for prompt in PROMPTS if not prompt.tools and len(prompt.expected) > 30 and prompt.adapted)
CALLING = next(prompt for prompt in PROMPTS if prompt.tools and "<tool_call>" in prompt.expected)
PROMPT = PLAIN.messages


def calls(ask: Ask, **fields):
    """Ask what the model was trained to answer with a tool call."""
    prompt = MessagesPrompt(messages=CALLING.messages)
    return ask(prompt, tools=CALLING.tools, max_tokens=CALLING.max_tokens, **fields).choices[0].tool_calls


def tools(ask: Ask) -> None:
    (call,) = calls(ask)
    assert call.name in {tool["function"]["name"] for tool in CALLING.tools}
    assert isinstance(json.loads(call.arguments), dict)


def tool_choice(ask: Ask) -> None:
    assert calls(ask, tool_choice="auto")
    assert not calls(ask, tool_choice="none")


def parallel_tool_calls(ask: Ask) -> None:
    assert len(calls(ask, parallel_tool_calls=False)) == 1


EFFECTS = {"tools": tools, "tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
