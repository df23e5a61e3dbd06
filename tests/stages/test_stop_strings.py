"""The stop_strings stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunnion.events import ChoiceDelta, GenerateEvent, TokenLogprob, Usage
from trunnion.plugin import NoConfig
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt
from trunnion_stages.stop_strings import StopStringsStage

from .conftest import context
from .events import cut, finish_of, run, text_of

LETTERS = st.text("ab\n日👋", max_size=30)
STOPS = st.text("ab\n日👋", min_size=1, max_size=4)
CUTS = st.lists(st.integers(0, 100))


def opened(*stops, **sampling):
    request = GenerateRequest(prompt=TextPrompt(text=""), sampling=SamplingParams(stop=stops, **sampling))
    return StopStringsStage(context(None), NoConfig()).open(request)


@given(text=LETTERS, stop=STOPS, cuts=CUTS)
def test_equals_a_split_at_the_stop_string(text, stop, cuts):
    deltas = run(opened(stop), cut(text, cuts), reason="length")
    assert text_of(deltas) == text.split(stop)[0]
    assert finish_of(deltas) == (("stop", stop) if stop in text else ("length", None))


@given(text=LETTERS, stops=st.lists(STOPS, min_size=1, max_size=3), cuts=CUTS, include=st.booleans())
def test_equals_one_character_at_a_time(text, stops, cuts, include):
    expected, found = text, None
    for end in range(1, len(text) + 1):
        found = next((stop for stop in stops if text[:end].endswith(stop)), None)
        if found:
            expected = text[:end] if include else text[: end - len(found)]
            break
    deltas = run(opened(*stops, include_stop_str_in_output=include), cut(text, cuts), reason="length")
    assert text_of(deltas) == expected
    assert finish_of(deltas) == (("stop", found) if found else ("length", None))


def test_holds_back_only_what_could_be_a_stop_string():
    stop = opened("END", "</s>")
    shown = [
        text_of(stop.feed(GenerateEvent(choices=(ChoiceDelta(text=t),)))[0].choices)
        for t in ["a", "E", "N", "x", "<", "END"]
    ]
    assert shown == ["a", "", "", "ENx", "", "<"]
    assert stop.done


def test_unchanged_events_pass_as_they_are():
    event = GenerateEvent(choices=(ChoiceDelta(text="plain"),))
    assert opened("#").feed(event)[0] is event
    assert opened("#", include_stop_str_in_output=True).feed(event)[0] is event


def test_choices_stop_apart_and_done_waits_for_all():
    stop = opened("#", n=2)
    both = (ChoiceDelta(index=0, text="a#b"), ChoiceDelta(index=1, text="c"))
    (event,) = stop.feed(GenerateEvent(choices=both))
    assert [(c.text, c.finish_reason) for c in event.choices] == [("a", "stop"), ("c", None)]
    assert not stop.done
    both = (ChoiceDelta(index=0, text="more"), ChoiceDelta(index=1, text="d", finish_reason="length"))
    (event,) = stop.feed(GenerateEvent(choices=both))
    assert [(c.index, c.text, c.finish_reason) for c in event.choices] == [(1, "d", "length")]
    assert stop.done
    assert stop.feed(GenerateEvent(choices=(ChoiceDelta(index=0, text="late"),))) == ()


def test_done_is_not_set_when_the_usage_came():
    stop = opened("#")
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    delta = ChoiceDelta(text="a#b", token_ids=(1, 2), logprobs=(TokenLogprob(token_id=1, token="a", logprob=-1.0),))
    (event,) = stop.feed(GenerateEvent(choices=(delta,), usage=usage))
    assert event.usage is usage
    assert event.choices[0].token_ids == (1, 2)
    assert event.choices[0].logprobs == delta.logprobs
    assert not stop.done
    assert stop.finish() == ()


def test_min_tokens_lets_early_stop_strings_be():
    def texts(*pieces):
        stop = opened("ab", min_tokens=2)
        events = [GenerateEvent(choices=(ChoiceDelta(text=piece, token_ids=(1,)),)) for piece in pieces]
        out = [choice for event in events for made in stop.feed(event) for choice in made.choices]
        return text_of(out), stop.done

    assert texts("ab", "x", "yab", "z") == ("abxy", True)
    assert texts("x", "a", "b") == ("x", True)
    assert texts("ab", "ab") == ("abab", False)


def test_finish_gives_back_what_was_held():
    stop = opened("END")
    stop.feed(GenerateEvent(choices=(ChoiceDelta(index=3, text="EN"),)))
    assert stop.finish() == (GenerateEvent(choices=(ChoiceDelta(index=3, text="EN"),)),)


@pytest.mark.parametrize("delta", [ChoiceDelta(text=""), ChoiceDelta(token_ids=(1,))])
def test_events_without_text_pass(delta):
    event = GenerateEvent(choices=(delta,))
    assert opened("#").feed(event)[0] is event


def test_nothing_to_do_without_stop_strings():
    assert opened() is None
