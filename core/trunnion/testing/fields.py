"""Hold an engine to what it declares of each request field: yes has its effect, no is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from trunnion.capabilities import FEATURES, HINTS, Support, used_features
from trunnion.errors import InvalidArgument, TrunnionError, UnsupportedFeature
from trunnion.requests import ChatMessage, MessagesPrompt, Prompt, TextPrompt, TokensPrompt

from . import advice
from ._guard import Suite
from .asking import Ask
from .effects import EFFECTS
from .examples import CONVERSATIONS, EXAMPLES, TOOL
from .streams import refused

CLASSIFIED = [feature for feature in FEATURES if feature not in HINTS]


class FieldChecks(Suite):
    """Hold for every field of a request.

    Attributes:
        effects: The plugin's own tests of an effect, by feature, instead of the kit's or where the kit has none
            (``handoff``, a model's media): each is called with an :class:`~trunnion.testing.Ask` and asserts.
    """

    effects: ClassVar[Mapping[str, Callable[[Ask], None]]] = {}

    @pytest.mark.parametrize("feature", CLASSIFIED)
    def test_field(self, ask: Ask, feature: str, request: pytest.FixtureRequest) -> None:
        """A field declared *yes* has its effect, *no* is refused by name, *unknown* is one or the other."""
        support = ask.mount.info.capabilities.support(feature)
        if support is Support.NO and not ask.accepts(feature):
            error = refused(ask, feature, **_example(feature, ask))
            assert error.details["feature"] in used_features(ask.request(**_example(feature, ask)))
            return
        effect = self.effects.get(feature) or EFFECTS.get(feature)
        if support is Support.UNKNOWN:
            try:
                if effect is None:
                    ask(**_example(feature, ask))
                else:
                    effect(ask)
            except (UnsupportedFeature, InvalidArgument):
                return  # the engine's own refusal, in our words
            if effect is None:
                self.lacking(f"{feature} was answered; {advice.EFFECTS}")
            return
        if feature == "priority" and feature not in self.effects:
            narrow: Ask = request.getfixturevalue("narrow_ask")
            effect = EFFECTS["priority"]
            effect(narrow)
            return
        if effect is None:
            self.lacking(f"{feature} is declared yes; {advice.EFFECTS}")
        effect(ask)

    @pytest.mark.parametrize("kind", ["messages", "text", "token_ids"])
    def test_prompt_kind(self, ask: Ask, kind: str) -> None:
        """A prompt of each kind is answered, by the engine or with stages before it, or refused by name.

        So is every conversation: with content in parts, with none, and one that ends with a tool's or the
        assistant's message.
        """
        prompts: dict[str, Prompt] = {
            "messages": MessagesPrompt(messages=({"role": "user", "content": "Hello"},)),
            "text": TextPrompt(text="Hello"),
            "token_ids": TokensPrompt(token_ids=_ids(ask)),
        }
        prompt = prompts[kind]
        planned = ask.mount.pipeline.prepare([ask.request(prompt)])[0]
        if isinstance(planned, Exception):
            assert isinstance(planned, InvalidArgument), planned
            assert kind not in ask.mount.info.capabilities.prompts, planned
            return
        answer = ask(prompt, **ask.only_if("sampling.max_tokens", max_tokens=3))
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1
        assert answer.choices[0].finish_reason is not None
        if kind == "messages":
            for what, messages in CONVERSATIONS.items():
                self._answered_or_refused(ask, what, messages)

    @staticmethod
    def _answered_or_refused(ask: Ask, what: str, messages: Sequence[ChatMessage]) -> None:
        fields = ask.only_if("sampling.max_tokens", max_tokens=3)
        if any("tool_calls" in message for message in messages):
            fields |= ask.only_if("tools", tools=(TOOL,))
        try:
            answer = ask(MessagesPrompt(messages=messages), **fields)
        except TrunnionError as refusal:
            advice = "answer it, or raise InvalidArgument with param naming the message"
            status = refusal.http_status
            assert 400 <= status < 500, f"{what}: {type(refusal).__name__}: {refusal}; {advice}"  # noqa: PT017 - an answer is right too
        else:
            assert answer.choices[0].finish_reason is not None, f"{what}: the answer has no finish reason"


def _ids(ask: Ask) -> tuple[int, ...]:
    """Return token ids that the model has."""
    prompt = ask.prepared().prompt
    return tuple(prompt.token_ids) if isinstance(prompt, TokensPrompt) else (5, 6, 7)


def _example(feature: str, ask: Ask) -> dict[str, Any]:
    """Return the fields of a request that uses a feature, and no other that would be refused first."""
    fields = dict(EXAMPLES[feature])
    if feature in ("tool_choice", "parallel_tool_calls") and not ask.accepts("tools"):
        fields.pop("tools")
    return fields
