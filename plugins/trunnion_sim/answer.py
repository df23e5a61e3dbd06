"""Hold what one choice will say, token by token, before it is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from trunnion import ChoiceDelta, TokenLogprob, ToolCallDelta

Reason = Literal["stop", "length", "tool_calls"]
LogprobOf = Callable[[int], TokenLogprob]


class Answer:
    """Hold the tokens of one choice.

    Attributes:
        ids: Token ids.
        texts: The text of each token; or, with ``by_id``, of each id; None where the engine makes none.
        calls: Pieces of tool calls, by the position of their token.
        reason, stop_reason: Why it ends.
        silent: Whether the last token is the one that stopped it, which is not part of the text.
        logprob_of: Gives the log probability of the token at a position; None where they were not asked for.
    """

    __slots__ = ("by_id", "calls", "ids", "index", "logprob_of", "reason", "silent", "stop_reason", "texts")

    def __init__(self, ids: Sequence[int], texts: Sequence[str] | None, *, index: int = 0, by_id: bool = False) -> None:
        self.ids = ids
        self.texts = texts
        self.index = index
        self.by_id = by_id
        self.calls: Mapping[int, ToolCallDelta] | None = None
        self.reason: Reason = "stop"
        self.stop_reason: int | None = None
        self.silent = False
        self.logprob_of: LogprobOf | None = None

    def cut(self, length: int) -> None:
        """End after so many tokens, for the lack of room."""
        if len(self.ids) > length:
            self.ids = self.ids[:length]
            self.reason = "length"

    def stop_at(self, stops: Sequence[int], *, first: int) -> None:
        """End with the first of the given tokens, which is counted and not said, at position ``first`` or later."""
        for position in range(first, len(self.ids)):
            if self.ids[position] in stops:
                self.stop_reason = self.ids[position]
                self.ids = self.ids[: position + 1]
                self.reason, self.silent = "stop", True
                return

    def delta(self, start: int, end: int) -> ChoiceDelta:
        """Return the tokens from ``start`` up to ``end``, which may lie behind the last."""
        ids = self.ids[start:end]
        last = end >= len(self.ids)
        texts = self.texts
        if texts is None:
            text = ""
        else:
            said = ids[:-1] if last and self.silent else ids
            text = "".join([texts[token] for token in said] if self.by_id else texts[start : start + len(said)])
        if not last and self.calls is None and self.logprob_of is None:
            return ChoiceDelta(index=self.index, text=text, token_ids=ids)
        calls = self.calls
        found = [calls[position] for position in range(start, start + len(ids)) if position in calls] if calls else ()
        logprobs = None
        if self.logprob_of is not None:
            logprobs = tuple(map(self.logprob_of, range(start, start + len(ids))))
        return ChoiceDelta(
            index=self.index,
            text=text,
            token_ids=ids,
            tool_calls=_joined(found) if found else (),
            logprobs=logprobs,
            finish_reason=self.reason if last else None,
            stop_reason=self.stop_reason if last else None,
        )


def _joined(found: Sequence[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    """Join the pieces of each call."""
    made: dict[int, ToolCallDelta] = {}
    for piece in found:
        before = made.get(piece.index)
        if before is not None:
            arguments = before.arguments + piece.arguments
            piece = ToolCallDelta(index=piece.index, id=before.id, name=before.name, arguments=arguments)  # noqa: PLW2901
        made[piece.index] = piece
    return tuple(made.values())
