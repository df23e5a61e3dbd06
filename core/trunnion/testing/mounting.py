"""Check that an engine answers the same wherever it is mounted."""

from __future__ import annotations

from typing import Any

import pytest

from trunnion.requests import MessagesPrompt, TextPrompt

from ._guard import Suite
from .asking import Ask
from .surface import Answer, Question, load_surface, surface_names

_NONE = "none installed"


class MountingChecks(Suite):
    """Hold for a Ray actor, a Ray Data pipeline, the HTTP surface: whatever installed adapters contribute."""

    @pytest.mark.trunnion_last
    @pytest.mark.parametrize("surface", surface_names() or [_NONE])
    def test_it_answers_the_same_on(self, ask: Ask, surface: str, request: pytest.FixtureRequest) -> None:
        """The engine's answers on a surface are those it gives in process."""
        if surface == _NONE:
            pytest.skip("no installed adapter contributes a surface")
        chosen = request.config.getoption("trunnion_surfaces")
        if chosen is not None and surface not in chosen.split(","):
            pytest.skip(f"{surface} is not among --trunnion-surfaces={chosen}")
        mounted = load_surface(surface)
        if why := mounted.unavailable():
            pytest.skip(f"{surface}: {why}")
        questions = [_question(ask, number) for number in range(3)]
        expected = [_answer(ask, number) for number in range(3)]
        spec = ask.mount.spec
        ask.mount.close()  # two of one engine may not fit into memory
        assert mounted.ask(spec, questions) == expected


def _question(ask: Ask, number: int) -> Question:
    prompt = ask.variant(number)
    if isinstance(prompt, TextPrompt):
        return Question(prompt=prompt.text, sampling=_sampling(ask))
    assert isinstance(prompt, MessagesPrompt), "surfaces ask messages or text"
    return Question(prompt=prompt.messages, sampling=_sampling(ask))


def _sampling(ask: Ask) -> dict[str, Any]:
    greedy = ask.only_if("sampling.temperature", temperature=0.0)
    return {**greedy, **ask.only_if("sampling.max_tokens", max_tokens=16)}


def _answer(ask: Ask, number: int) -> Answer:
    completion = ask(ask.variant(number), **_sampling(ask))
    assert completion.usage is not None
    return Answer(
        text=completion.text,
        finish_reason=completion.choices[0].finish_reason,
        prompt_tokens=completion.usage.prompt_tokens,
        completion_tokens=completion.usage.completion_tokens,
    )
