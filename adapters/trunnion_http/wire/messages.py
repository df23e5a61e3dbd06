"""Check the frame of a conversation and its tools; what a message may contain is judged by the chat template."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.media import read_part
from trunnion.requests import MediaPart

from .decode import unknown_argument

ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_MESSAGE_FIELDS: Final = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call", "annotations"}
    | {"reasoning", "reasoning_content"}
)
_TOOL_FIELDS: Final = frozenset({"type", "function"})
_FUNCTION_FIELDS: Final = frozenset({"name", "description", "parameters", "strict"})
_CALL_FIELDS: Final = frozenset({"id", "type", "function", "index"})
_CALLED_FIELDS: Final = frozenset({"name", "arguments"})
_MISSPELT: Final = 0.75
"""How alike two names are of which one is taken for the other, misspelt; 1 is the same."""
_TEXT_PARTS: Final = frozenset({"text", "refusal"})
_MEDIA_PARTS: Final = frozenset({"image_url", "video_url", "audio_url", "input_audio"})


def refuse_fields(body: object, refused: Mapping[str, str]) -> None:
    """Refuse fields that exist elsewhere and mean nothing here: names, with what to do instead.

    Raises:
        UnsupportedFeature: One of them is set; ``param`` names it.
    """
    for name, instead in refused.items():
        if getattr(body, name, None) is not None:
            raise UnsupportedFeature(f"{name} is not supported: {instead}", param=name)


def check_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[MediaPart, ...]:
    """Check roles and contents, and return the media parts in the order of the conversation.

    Raises:
        InvalidArgument: ``param`` names the message and part, such as ``messages[2].content[0]``.
    """
    if not messages:
        raise InvalidArgument("messages must not be empty", param="messages")
    media: list[MediaPart] = []
    for index, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            param = f"messages[{index}].role"
            msg = f"{param} must be one of {', '.join(sorted(ROLES))}, not {role!r}"
            raise InvalidArgument(msg, param=param)
        content = message.get("content")
        if content is None and role != "assistant":
            param = f"messages[{index}].content"
            msg = f"{param} is missing; only an assistant's message may go without"
            raise InvalidArgument(msg, param=param)
        if not message.keys() <= _MESSAGE_FIELDS:
            _check_fields(message, f"messages[{index}]")
        if message.get("tool_calls"):
            _check_calls(message["tool_calls"], f"messages[{index}].tool_calls")
        if content is not None and not isinstance(content, str):
            _parts(content, f"messages[{index}].content", media)
    return tuple(media)


def _check_fields(message: Mapping[str, Any], where: str) -> None:
    """Refuse fields that are misspelt. Others may be what the chat template of a model reads."""
    for name in message.keys() - _MESSAGE_FIELDS:
        if near := difflib.get_close_matches(name, _MESSAGE_FIELDS, n=1, cutoff=_MISSPELT):
            raise unknown_argument(f"{where}.{name}", near)


def _check_calls(calls: object, where: str) -> None:
    """Check the calls that an assistant's message tells of."""
    if not isinstance(calls, list):
        raise InvalidArgument(f"{where} must be a list of calls", param=where)
    for index, call in enumerate(calls):
        param = f"{where}[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            msg = f'{param} must be {{"id": ..., "type": "function", "function": {{"name": ..., "arguments": ...}}}}'
            raise InvalidArgument(msg, param=param)
        _refuse_others(call, _CALL_FIELDS, param)
        _refuse_others(function, _CALLED_FIELDS, f"{param}.function")


def _refuse_others(fields: Iterable[str], known: frozenset[str], where: str) -> None:
    for name in sorted(set(fields) - known):
        raise unknown_argument(f"{where}.{name}", difflib.get_close_matches(name, known, n=1))


def _parts(content: object, where: str, media: list[MediaPart]) -> None:
    if not isinstance(content, list):
        raise InvalidArgument(f"{where} must be a string, a list of parts or null", param=where)
    for index, part in enumerate(content):
        param = f"{where}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise InvalidArgument(f"{param} must be an object with a type", param=param)
        if kind in _TEXT_PARTS:
            if not isinstance(part.get(kind), str):
                raise InvalidArgument(f"{param}.{kind} must be a string", param=f"{param}.{kind}")
        elif kind in _MEDIA_PARTS:
            media.append(read_part(part, param))
        else:
            msg = f"{param}: parts of type {kind!r} are not supported; send text, image_url, video_url or input_audio"
            raise UnsupportedFeature(msg, param=f"{param}.type")


def check_tools(tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any] | None) -> None:
    """Check that tools are functions with names, and that the tool choice is one of them.

    Raises:
        InvalidArgument: ``param`` names the tool or ``tool_choice``.
    """
    names = set()
    for index, tool in enumerate(tools):
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if tool.get("type") != "function" or not isinstance(name, str) or not name:
            param = f"tools[{index}]"
            msg = f'{param} must be {{"type": "function", "function": {{"name": ...}}}}'
            raise InvalidArgument(msg, param=param)
        assert isinstance(function, dict)
        _refuse_others(tool, _TOOL_FIELDS, f"tools[{index}]")
        _refuse_others(function, _FUNCTION_FIELDS, f"tools[{index}].function")
        names.add(name)
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            msg = f"tool_choice must be none, auto, required or a named function, not {choice!r}"
            raise InvalidArgument(msg, param="tool_choice")
        if choice == "required" and not names:
            raise InvalidArgument("tool_choice: required needs tools", param="tool_choice")
        return
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") != "function" or not isinstance(name, str):
        msg = 'tool_choice must be none, auto, required or {"type": "function", "function": {"name": ...}}'
        raise InvalidArgument(msg, param="tool_choice")
    if name not in names:
        raise InvalidArgument(f"tool_choice names {name!r}, which is not among tools", param="tool_choice")
