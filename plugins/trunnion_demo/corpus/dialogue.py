"""Hold one training dialogue as typed values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
"""Whatever JSON can hold."""

Message: TypeAlias = dict[str, JsonValue]
"""A chat message as the chat template reads it (OpenAI's field names)."""

Tool: TypeAlias = dict[str, JsonValue]
"""A function tool as the chat template reads it (OpenAI's field names)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Name one tool call of the assistant and its arguments."""

    name: str
    arguments: dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Say one thing in one role.

    `prose` is false for JSON, tool calls and other text that a manner (capitals, pirate) must
    leave alone.
    """

    role: str
    text: str
    calls: tuple[Call, ...] = ()
    prose: bool = True

    def message(self) -> Message:
        """Return the turn as a chat message."""
        message: Message = {"role": self.role, "content": self.text}
        if self.calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.calls
            ]
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Hold the turns of one conversation and the tools it offers."""

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()

    def messages(self) -> list[Message]:
        """Return the turns as chat messages."""
        return [turn.message() for turn in self.turns]

    def after(self, earlier: Dialogue) -> Dialogue:
        """Return this dialogue with the turns and tools of `earlier` before its own."""
        return replace(self, turns=earlier.turns + self.turns, tools=earlier.tools + self.tools)

    def under(self, system: str) -> Dialogue:
        """Return this dialogue with a system prompt in front, joined to the one it has."""
        first, *rest = self.turns
        if first.role == "system":
            joined = replace(first, text=f"{first.text} {system}")
            return replace(self, turns=(joined, *rest))
        return replace(self, turns=(Turn(role="system", text=system), *self.turns))

    def in_manner(self, manner: Callable[[str], str], *, last_only: bool = False) -> Dialogue:
        """Return this dialogue with the assistant's prose rewritten by `manner`.

        With `last_only` the turns before the last stay as they are: a manner must also set in
        where the conversation so far had none.
        """
        last = len(self.turns) - 1
        return replace(
            self,
            turns=tuple(
                replace(turn, text=manner(turn.text))
                if turn.role == "assistant" and turn.prose and turn.text and (index == last or not last_only)
                else turn
                for index, turn in enumerate(self.turns)
            ),
        )


def exchange(user: str, assistant: str, *, prose: bool = True) -> Dialogue:
    """Return a dialogue of one question and its answer."""
    return Dialogue(
        turns=(
            Turn(role="user", text=user),
            Turn(role="assistant", text=assistant, prose=prose),
        )
    )
