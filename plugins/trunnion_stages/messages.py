"""Check messages and bring them into the form that chat templates expect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trunnion.errors import InvalidArgument, UnsupportedFeature


def template_messages(messages: Sequence[Mapping[str, Any]], *, join: bool) -> list[Mapping[str, Any]]:
    """Return the messages for the template; those that need no change are passed on, none is written to.

    Fields that are None are left out. The arguments of tool calls become objects, which is what templates expect
    (OpenAI sends them as JSON text). With ``join``, text parts become one string, joined by newlines.

    Raises:
        InvalidArgument: ``param`` says which field of which message.
    """
    if isinstance(messages, str | bytes | Mapping) or not hasattr(messages, "__getitem__"):
        msg = f"messages must be a list of messages, not {type(messages).__name__}"
        raise InvalidArgument(msg, param="messages")
    if not len(messages):
        msg = "messages is empty; send at least one message"
        raise InvalidArgument(msg, param="messages")
    return [_message(message, index, join=join) for index, message in enumerate(messages)]


def _fail(index: int, field: str, rule: str, value: object) -> InvalidArgument:
    where = f"messages[{index}]{field}"
    return InvalidArgument(f"{where} must be {rule}, not {_short(value)}", param=where)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's worth


def _message(message: Mapping[str, Any], index: int, *, join: bool) -> Mapping[str, Any]:
    if not isinstance(message, Mapping):
        raise _fail(index, "", "an object with role and content", message)
    role = message.get("role")
    if role is None:
        where = f"messages[{index}].role"
        msg = f"{where} is missing; give it, such as 'user'"
        raise InvalidArgument(msg, param=where)
    if not isinstance(role, str) or not role:
        raise _fail(index, ".role", "a string that is not empty", role)
    content = message.get("content")
    if (
        isinstance(content, str)
        and "tool_calls" not in message
        and type(message) is dict
        and None not in message.values()
    ):
        return message
    made = {key: value for key, value in message.items() if value is not None}
    calls = made.pop("tool_calls", None)
    if calls is not None and len(calls):
        made["tool_calls"] = _tool_calls(calls, index)
    made["content"] = _content(content, index, role=role, join=join)
    return made


def _content(content: object, index: int, *, role: str, join: bool) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if content is None:
        if role == "assistant":
            return ""
        where = f"messages[{index}].content"
        msg = f"{where} is missing; only an assistant's message may go without"
        raise InvalidArgument(msg, param=where)
    if isinstance(content, bytes | Mapping) or not hasattr(content, "__iter__"):
        raise _fail(index, ".content", "a string or a list of parts", content)
    parts = [_part(part, index, place) for place, part in enumerate(content)]
    return "\n".join(part["text"] for part in parts) if join else parts


def _part(part: object, index: int, place: int) -> dict[str, Any]:
    where = f".content[{place}]"
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise _fail(index, where, "a part with type and text", part)
    kind = part.get("type")
    if kind not in ("text", "input_text", "output_text"):
        param = f"messages[{index}]{where}.type"
        msg = f"{param} is {kind!r}, but the chat_template stage renders text alone; leave the part out"
        raise UnsupportedFeature(msg, param=param)
    text = part.get("text")
    if not isinstance(text, str):
        raise _fail(index, f"{where}.text", "a string", text)
    return {"type": "text", "text": text}


def _tool_calls(calls: object, index: int) -> list[dict[str, Any]]:
    if isinstance(calls, str | bytes | Mapping) or not hasattr(calls, "__iter__"):
        raise _fail(index, ".tool_calls", "a list of tool calls", calls)
    return [_tool_call(call, index, place) for place, call in enumerate(calls)]


def _tool_call(call: object, index: int, place: int) -> dict[str, Any]:
    where = f".tool_calls[{place}]"
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        raise _fail(index, where, "a tool call with a function", call)
    function = dict(call["function"])
    if not isinstance(function.get("name"), str):
        raise _fail(index, f"{where}.function.name", "a string", function.get("name"))
    arguments = function.get("arguments")
    if isinstance(arguments, str | None):
        try:
            arguments = json.loads(arguments) if arguments else {}
        except ValueError as error:
            raise _fail(index, f"{where}.function.arguments", "a JSON object as text", arguments) from error
    if not isinstance(arguments, Mapping):
        raise _fail(index, f"{where}.function.arguments", "a JSON object", arguments)
    function["arguments"] = arguments
    return {**call, "function": function}
