"""The reasoning stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunnion.events import ChoiceDelta, GenerateEvent
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt, TokensPrompt
from trunnion_stages.config import ReasoningConfig
from trunnion_stages.reasoning import ReasoningStage

from .conftest import context
from .events import cut, run, text_of

PIECES = st.sampled_from(["<think>", "</think>", "<", "</th", "so ", "\n", "日", ">"])


def opened(prompt="", **config):
    if isinstance(prompt, str):
        prompt = TextPrompt(text=prompt)
    return ReasoningStage(context(None), ReasoningConfig(**config)).open(GenerateRequest(prompt=prompt))


def split(text, prompt="", *, cuts=(), **config):
    deltas = run(opened(prompt, **config), cut(text, cuts))
    assert deltas[-1].finish_reason == "stop"
    return "".join(delta.reasoning for delta in deltas), text_of(deltas)


@pytest.mark.parametrize("cuts", [(), range(99)])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", ("", "Hello")),
        ("<think>hm</think>Hello", ("hm", "Hello")),
        ("<think>hm", ("hm", "")),
        ("a<think>b</think>c<think>d</think>e", ("bd", "ace")),
        ("a < b </think> <thin", ("", "a < b </think> <thin")),
    ],
)
def test_tags_part_the_text(text, expected, cuts):
    assert split(text, cuts=cuts) == expected


@given(text=st.lists(PIECES, max_size=10).map("".join), cuts=st.lists(st.integers(0, 100)))
def test_events_may_be_cut_anywhere(text, cuts):
    assert split(text, cuts=cuts) == split(text)


def test_the_prompt_may_have_opened_the_reasoning():
    assert split("hm</think>Hi", "<think>\n") == ("hm", "Hi")
    assert split("hm</think>Hi", TokensPrompt(token_ids=[1], text="x<think>")) == ("hm", "Hi")
    assert split("hm</think>Hi", TokensPrompt(token_ids=[1])) == ("", "hm</think>Hi")
    assert split("hm</think>Hi", MessagesPrompt(messages=[]), starts_inside=True) == ("hm", "Hi")
    assert split("hm", "<think>", starts_inside=False) == ("", "hm")


def test_tags_are_configurable():
    assert split("[a]b[/a]c", start="[a]", end="[/a]") == ("b", "c")


def test_plain_events_pass_and_finish_gives_back_what_was_held():
    reasoning = opened()
    event = GenerateEvent(choices=(ChoiceDelta(text="plain"),))
    assert reasoning.feed(event)[0] is event
    reasoning.feed(GenerateEvent(choices=(ChoiceDelta(text="x<"),)))
    assert reasoning.finish() == (GenerateEvent(choices=(ChoiceDelta(text="<"),)),)
    assert reasoning.finish() == ()
