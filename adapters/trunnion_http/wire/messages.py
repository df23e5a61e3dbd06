"""Check the frame of a conversation and its tools; what a message may contain is judged by the chat template."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.requests import MediaPart

ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_TEXT_PARTS: Final = frozenset({"text", "refusal"})
_URL_PARTS: Final = {"image_url": "image", "video_url": "video", "audio_url": "audio"}


def check_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[MediaPart, ...]:
    """Check roles, and return the media parts in the order of the conversation.

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
        if content is not None and not isinstance(content, str):
            _parts(content, f"messages[{index}].content", media)
    return tuple(media)


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
        elif kind in _URL_PARTS:
            media.append(_url_part(part, kind, param))
        elif kind == "input_audio":
            media.append(_audio_part(part, param))
        else:
            msg = f"{param}: parts of type {kind!r} are not supported; send text, image_url, video_url or input_audio"
            raise UnsupportedFeature(msg, param=f"{param}.type")


def _url_part(part: Mapping[str, Any], kind: str, where: str) -> MediaPart:
    holder = part.get(kind)
    url = holder.get("url") if isinstance(holder, dict) else holder
    param = f"{where}.{kind}"
    if not isinstance(url, str) or not url:
        raise InvalidArgument(f"{param}.url must be a string", param=f"{param}.url")
    if not url.startswith("data:"):
        return MediaPart(type=_URL_PARTS[kind], url=url)  # type: ignore[arg-type]
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidArgument(f"{param}.url: a data URL must hold base64 data", param=f"{param}.url")
    mime_type = head[len("data:") : -len(";base64")]
    return MediaPart(type=_URL_PARTS[kind], data=_decode(data, param), mime_type=mime_type)  # type: ignore[arg-type]


def _audio_part(part: Mapping[str, Any], where: str) -> MediaPart:
    audio = part.get("input_audio")
    param = f"{where}.input_audio"
    if (
        not isinstance(audio, dict)
        or not isinstance(audio.get("data"), str)
        or not isinstance(audio.get("format"), str)
    ):
        raise InvalidArgument(f"{param} must hold data (base64) and format", param=param)
    return MediaPart(type="audio", data=_decode(audio["data"], param), mime_type=f"audio/{audio['format']}")


def _decode(data: str, param: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"{param}: the data is not valid base64", param=param) from error


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
