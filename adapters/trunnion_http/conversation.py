"""Gather the messages of a conversation that another wire format cuts differently, and remember who is from where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from trunnion.formats import OutputFormat
from trunnion.media import from_url
from trunnion.requests import MediaPart, MessagesPrompt

_JOINED: Final = frozenset({"user", "assistant"})
"""Roles whose turns become one where they follow each other: chat templates want them to alternate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Hold what a body asks of the core, and the client's names of what is in it."""

    prompt: MessagesPrompt
    media: tuple[MediaPart, ...]
    tools: tuple[dict[str, Any], ...]
    tool_choice: str | dict[str, Any] | None
    parallel_tool_calls: bool | None
    output_format: OutputFormat | None
    names: dict[str, str]


class Conversation:
    """Build messages in the core's form, OpenAI's chat format.

    Attributes:
        messages: What was gathered.
        media: The media in it, in order.
        names: Places in the client's body by places in ``messages``, for :func:`trunnion_http.names.client_names`.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.media: list[MediaPart] = []
        self.names: dict[str, str] = {}

    def text(self, role: str, text: str, place: str) -> None:
        """Add text to the role's turn."""
        self._add(role, {"type": "text", "text": text}, place)

    def image(self, role: str, url: str, place: str, *, field: str, detail: str | None = None) -> None:
        """Add an image to the role's turn; ``field`` is the client's place of its URL or data.

        Raises:
            InvalidArgument: It is no image; ``param`` is ``field``.
        """
        self._add(role, self._image(url, field, detail), place, field=field)

    def result(self, call_id: str, content: str | list[dict[str, Any]], place: str) -> None:
        """Add what a tool call returned: text, or text parts and those that :meth:`image_part` made."""
        self._new({"role": "tool", "tool_call_id": call_id, "content": content}, place)

    def image_part(self, url: str, field: str, spot: int) -> dict[str, Any]:
        """Return an image for a tool's result, which is to be its part number ``spot`` and the next message."""
        self.names[f"messages[{len(self.messages)}].content[{spot}].image_url.url"] = field
        return self._image(url, field, None)

    def call(self, call_id: str, name: str, arguments: str | dict[str, Any], place: str) -> None:
        """Add a call to the assistant's turn; ``arguments`` as JSON text or an object."""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        made = {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
        self._turn("assistant", place).setdefault("tool_calls", []).append(made)

    def reasoning(self, text: str, place: str) -> None:
        """Add what the model thought to the assistant's turn; chat templates that want it read it there."""
        turn = self._turn("assistant", place)
        turn["reasoning_content"] = turn.get("reasoning_content", "") + text

    def _image(self, url: str, field: str, detail: str | None) -> dict[str, Any]:
        self.media.append(from_url("image", url, field))
        held = {"url": url} if detail is None else {"url": url, "detail": detail}
        return {"type": "image_url", "image_url": held}

    def _add(self, role: str, part: dict[str, Any], place: str, field: str | None = None) -> None:
        turn = self._turn(role, place)
        content = turn["content"]
        only_text = part["type"] == "text"
        if content is None and only_text:
            turn["content"] = part["text"]  # as most send it
            return
        if not isinstance(content, list):
            content = turn["content"] = [] if content is None else [{"type": "text", "text": content}]
        if field is not None:
            self.names[f"messages[{len(self.messages) - 1}].content[{len(content)}].image_url.url"] = field
        content.append(part)

    def _turn(self, role: str, place: str) -> dict[str, Any]:
        last = self.messages[-1] if self.messages else None
        if last is not None and last["role"] == role and role in _JOINED:
            return last
        return self._new({"role": role, "content": None}, place)

    def _new(self, message: dict[str, Any], place: str) -> dict[str, Any]:
        self.names[f"messages[{len(self.messages)}]"] = place
        self.messages.append(message)
        return message
