"""What becomes of an answer, however it is cut."""

import itertools

import pytest
import trunnion as t
from hypothesis import given
from hypothesis import strategies as st
from trunnion import ChoiceDelta, GenerateEvent, ToolCallDelta

from trunnion_redact.mask import Masked
from trunnion_redact.restore import Restorer, RestoreStage

VALUES = {"<EMAIL_1>": "bob@example.com", "<EMAIL_12>": "al@example.org", "<PHONE_1>": "+1 650 253 0000"}


def restored(events):
    """Run events through a restorer; return one completion."""
    restorer, whole = Restorer(VALUES), t.Completion()
    for event in events:
        for out in restorer.feed(event):
            whole.add(out)
    for out in restorer.finish():
        whole.add(out)
    return whole


def cut(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


def deltas(pieces, index=0, field="text", *, finish=True):
    made = [ChoiceDelta(index=index, **{field: piece}) for piece in pieces]
    return [*made, ChoiceDelta(index=index, finish_reason="stop")] if finish else made


def one_by_one(*streams):
    """Return events of one delta each, the streams in turn."""
    turns = itertools.chain.from_iterable(itertools.zip_longest(*streams))
    return [GenerateEvent(choices=(delta,)) for delta in turns if delta is not None]


TEXT = "Dear <EMAIL_1>, <<EMAIL_12> <PHONE_1> <EMAIL_7> <EMAIL_ <PHONE"
PLAIN = "Dear bob@example.com, <al@example.org +1 650 253 0000 <EMAIL_7> <EMAIL_ <PHONE"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 1000])
@pytest.mark.parametrize("field", ["text", "reasoning"])
def test_text_and_reasoning_cut_anywhere(size, field):
    for finish in (True, False):
        choice = restored(one_by_one(deltas(cut(TEXT, size), field=field, finish=finish))).choices[0]
        assert getattr(choice, field) == PLAIN


@given(st.lists(st.integers(1, 12), min_size=1), st.permutations(["text", "reasoning", "calls"]))
def test_channels_and_choices_are_kept_apart(sizes, order):
    def pieces(text):
        made, size = [], itertools.cycle(sizes)
        while text:
            made.append(text[: (end := next(size))])
            text = text[end:]
        return made

    streams = [deltas(pieces(TEXT), index=1), deltas(pieces(TEXT[::-1]), index=2)]
    for field in order:
        if field == "calls":
            for call in (0, 1):
                made = [ToolCallDelta(index=call, arguments=piece) for piece in pieces(f'{{"to": "{TEXT}"}}')]
                streams.append([ChoiceDelta(tool_calls=(one,)) for one in made])
        else:
            streams.append(deltas(pieces(TEXT), field=field, finish=False))
    whole = restored(one_by_one(*streams))
    first = whole.choices[0]
    assert (first.text, first.reasoning) == (PLAIN, PLAIN)
    assert [call.arguments for call in first.tool_calls] == [f'{{"to": "{PLAIN}"}}'] * 2
    assert (whole.choices[1].text, whole.choices[2].text) == (PLAIN, TEXT[::-1])


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_arguments_of_servers_that_escape_angle_brackets(size):
    text = r'{"to": "\u003cEMAIL_1\u003e", "cc": ["\\u003c"]}'
    events = [GenerateEvent(choices=(ChoiceDelta(tool_calls=(ToolCallDelta(index=0, arguments=piece),)),))
              for piece in cut(text, size)]  # fmt: skip
    assert restored(events).choices[0].tool_calls[0].arguments == r'{"to": "bob@example.com", "cc": ["\\u003c"]}'


def test_values_are_escaped_in_arguments_alone():
    restorer = Restorer({"<EMAIL_1>": 'a"b'})
    call = ToolCallDelta(index=0, id="c", name="f", arguments='{"x": "<EMAIL_1>"}')
    event = GenerateEvent(choices=(ChoiceDelta(text="<EMAIL_1>", tool_calls=(call,), finish_reason="stop"),))
    [out] = restorer.feed(event)
    assert out.choices[0].text == 'a"b'
    assert out.choices[0].tool_calls[0] == ToolCallDelta(index=0, id="c", name="f", arguments='{"x": "a\\"b"}')


def test_a_call_that_is_cut_off_keeps_its_end():
    call = ToolCallDelta(index=1, arguments='{"to": "<EMA')
    events = [
        GenerateEvent(choices=(ChoiceDelta(tool_calls=(call,)),)),
        GenerateEvent(choices=(ChoiceDelta(finish_reason="length"),)),
    ]
    assert restored(events).choices[0].tool_calls[1].arguments == '{"to": "<EMA'


def test_only_what_may_be_a_placeholder_is_held_back():
    restorer = Restorer(VALUES)
    for text, out in [("Dear ", "Dear "), ("a < b <", "a < b "), ("EMAIL_", ""), ("x", "<EMAIL_x"), ("<PH", ""),
                      ("ONE_1> ", "+1 650 253 0000 ")]:  # fmt: skip
        [event] = restorer.feed(GenerateEvent(choices=(ChoiceDelta(text=text),)))
        assert event.choices[0].text == out


def test_ids_logprobs_reasons_and_usage_pass():
    usage = t.Usage(prompt_tokens=1, completion_tokens=2)
    logprob = t.TokenLogprob(token_id=7, token="<EMAIL_1>", logprob=-0.5)
    delta = ChoiceDelta(
        index=3, text="<EMAIL_1>", token_ids=(7, 8), logprobs=(logprob,), finish_reason="stop", stop_reason="<PHONE_1>"
    )
    [out] = Restorer(VALUES).feed(GenerateEvent(choices=(delta,), usage=usage, handoff={"x": 1}))
    choice = out.choices[0]
    assert (choice.index, choice.token_ids, choice.logprobs, choice.finish_reason) == (3, (7, 8), (logprob,), "stop")
    assert (choice.text, choice.stop_reason) == ("bob@example.com", "+1 650 253 0000")
    assert (out.usage, out.handoff) == (usage, {"x": 1})
    terminal = GenerateEvent(usage=usage)
    assert Restorer(VALUES).feed(terminal) == (terminal,)


def test_nothing_is_opened_where_nothing_was_masked():
    stage = RestoreStage(t.StageContext(info=t.EngineInfo(engine="e", model="m")), t.NoConfig())
    plain = t.GenerateRequest(prompt=t.TextPrompt(text="x"))
    assert stage.open(plain) is None
    assert stage.open(plain.with_note("redact", Masked(values={}))) is None
    assert stage.open(plain.with_note("redact", Masked(values=VALUES))) is not None
