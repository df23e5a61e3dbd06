"""Call the tools of a request, with arguments that satisfy their schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from trunnion import GenerateRequest, MessagesPrompt, ToolCallDelta
from trunnion.errors import InvalidArgument

from .json_value import json_value
from .tokens import draw, pieces

_NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}
Call = tuple[str, Mapping[str, Any]]
"""Name and arguments."""


def calls_for(request: GenerateRequest, seed: str, *, count: int) -> list[Call]:
    """Return the calls to be made; empty where the request has no tools, forbids calls, or brings their results.

    ``count`` of them at most, one where no parallel calls may be. A last message with a tool's result is answered in
    words, unless the request forces a call, so that an agent's loop ends.

    Raises:
        InvalidArgument: The tool choice is malformed, or names no tool.
        UnsupportedFeature: A tool's parameters are more than can be satisfied.
    """
    functions = [_function(tool) for tool in request.tools]
    names = [str(function.get("name")) for function in functions]
    wanted = _wanted(request, names)
    if wanted is None:
        return []
    if wanted:
        functions = [function for function in functions if function.get("name") == wanted]
    calls = []
    for number in range(1 if request.parallel_tool_calls is False else count):
        drawn = f"{seed}/call/{number}"
        function = functions[draw(drawn, 1)[0] % len(functions)]
        arguments = json_value(function.get("parameters") or _NO_PARAMETERS, drawn)
        calls.append((str(function.get("name")), arguments))
    return calls


def _wanted(request: GenerateRequest, names: list[str]) -> str | None:
    """Return the function to call, "" for any, None for no call at all."""
    choice = request.tool_choice
    if choice == "none" or (choice in (None, "auto") and (not names or _has_results(request))):
        return None
    if choice in (None, "auto"):
        return ""
    if not names:
        message = f"tool_choice is {choice!r}, but the request has no tools; give tools, or leave tool_choice out"
        raise InvalidArgument(message, param="tool_choice")
    if request.output_format is not None:
        message = "a forced tool_choice fixes the output, so it cannot go together with output_format; drop one"
        raise InvalidArgument(message, param="tool_choice")
    if choice == "required":
        return ""
    name = _function(choice).get("name") if isinstance(choice, Mapping) else None
    if not isinstance(name, str) or name not in names:
        message = f"tool_choice {choice!r} is none of auto, none, required or one of the tools: {', '.join(names)}"
        raise InvalidArgument(message, param="tool_choice")
    return name


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def _has_results(request: GenerateRequest) -> bool:
    prompt = request.prompt
    return isinstance(prompt, MessagesPrompt) and bool(prompt.messages) and prompt.messages[-1].get("role") == "tool"


def call_tokens(calls: list[Call], seed: str) -> tuple[list[str], dict[int, ToolCallDelta]]:
    """Return the tokens of the calls, and the piece of a call that each of them is."""
    tokens: list[str] = []
    deltas: dict[int, ToolCallDelta] = {}
    for index, (name, arguments) in enumerate(calls):
        identifier = f"call_{draw(f'{seed}/id/{index}', 12).hex()}"
        deltas[len(tokens)] = ToolCallDelta(index=index, id=identifier, name=name)
        tokens.append(name)
        for piece in pieces(json.dumps(arguments, ensure_ascii=False)):
            deltas[len(tokens)] = ToolCallDelta(index=index, arguments=piece)
            tokens.append(piece)
    return tokens, deltas
