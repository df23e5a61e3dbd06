"""Define scripted answers: a list of them to be given in turn, or by what the prompt contains."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from trunnion import PluginConfig
from trunnion.errors import InvalidArgument


class ScriptedCall(PluginConfig):
    """Hold one tool call of a scripted answer."""

    name: str = Field(description="Name of the function.")
    arguments: dict[str, Any] = Field({}, description="Its arguments.")


class ScriptedAnswer(PluginConfig):
    """Hold one answer that has more than text."""

    text: str = Field("", description="What is said.")
    tool_calls: tuple[ScriptedCall, ...] = Field((), description="What is called, after the text.")


Script = dict[str, str | ScriptedAnswer] | tuple[str | ScriptedAnswer, ...]


class Scripted:
    """Find the answer of each prompt. Answers in turn begin again after the last."""

    def __init__(self, script: Script) -> None:
        self._by_text = script if isinstance(script, Mapping) else None
        self._in_turn = itertools.cycle(() if isinstance(script, Mapping) else script)

    def answer(self, prompt: str) -> ScriptedAnswer:
        """Return the answer whose key the prompt contains, the longest key first; "" is contained in all.

        Raises:
            InvalidArgument: The script has no answer to this prompt.
        """
        if self._by_text is None:
            found: str | ScriptedAnswer = next(self._in_turn)
        else:
            keys = [key for key in self._by_text if key in prompt]
            if not keys:
                raise InvalidArgument(
                    "the simulated engine's script has no answer to this prompt; "
                    "add a key that the prompt contains, or one that is empty, for all others",
                    param="prompt",
                )
            found = self._by_text[max(keys, key=len)]
        return ScriptedAnswer.model_validate({"text": found}) if isinstance(found, str) else found
