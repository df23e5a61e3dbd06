import dataclasses

import pytest
from fake_engines import HELLO, TOKENS, event, request

import trunnion as t
from trunnion._flow import transduce
from trunnion.errors import InternalError


class Hold:
    """Hold text back until the end, as a detokenizer or a stop-string search does."""

    def __init__(self, count=1, *, done_at=None, eats_usage=False, own_usage=None) -> None:
        self.count, self.held, self.done = count, [], False
        self.done_at, self.eats_usage, self.own_usage, self.fed = done_at, eats_usage, own_usage, 0

    def feed(self, e):
        self.fed += 1
        self.done = self.fed == self.done_at
        if self.eats_usage:
            e = dataclasses.replace(e, usage=None)
        [choice] = e.choices or (t.ChoiceDelta(),)
        self.held.append(choice.text)
        ready = self.held.pop(0) if len(self.held) > self.count else ""
        if not ready and e.usage is None and choice.finish_reason is None:
            return []
        return [dataclasses.replace(e, choices=(dataclasses.replace(choice, text=ready),))]

    def finish(self):
        flushed = [event(text, ids=()) for text in self.held]
        if self.own_usage is not None:
            flushed.append(t.GenerateEvent(usage=self.own_usage))
        return flushed


async def play(script, *transducers):
    async def engine():
        try:
            for e in script:
                yield e
        finally:
            closed.append(True)

    closed = []
    prepared = t.Prepared(request=request(prompt=TOKENS), transducers=transducers)
    events = [e async for e in transduce(engine(), prepared)]
    assert closed == [True]
    return events


def whole(events):
    made = t.Completion()
    for e in events:
        made.add(e)
    return made


WORDS = [event("a "), event("b "), event("c "), event("d", finish="stop", usage=4)]


@pytest.mark.parametrize("counts", [(0,), (1,), (3,), (9,), (1, 2), (9, 9), (2, 0, 1)])
async def test_usage_is_on_the_very_last_event_whatever_is_held_back(counts):
    events = await play(WORDS, *(Hold(count) for count in counts))
    assert [e.usage is not None for e in events] == [False] * (len(events) - 1) + [True]
    made = whole(events)
    assert (made.text, made.usage) == ("a b c d", WORDS[-1].usage)
    assert [c.finish_reason for e in events for c in e.choices if c.finish_reason] == ["stop"]
    assert events[-1].choices[0].finish_reason == "stop"  # nothing follows it


async def test_nothing_held_back_passes_unchanged():
    events = await play(WORDS, Hold(0))
    assert events == WORDS
    assert events[-1] is not None


async def test_a_flush_joins_the_choice_it_belongs_to():
    last = t.GenerateEvent(
        choices=(t.ChoiceDelta(index=1, text="x", token_ids=(7,), finish_reason="length"),),
        usage=t.Usage(prompt_tokens=1, completion_tokens=2),
        handoff={"k": 1},
        prompt_logprobs=(None,),
    )

    class Flush:
        done = False

        def feed(self, e):
            return [e]

        def finish(self):
            logprobs = (t.TokenLogprob(token_id=1, token="y", logprob=-1.0),)
            return [event("y", index=1, ids=(8,), logprobs=logprobs), event("z", index=0, ids=(9,))]

    [only] = await play([last], Flush())
    assert [(c.index, c.text, tuple(c.token_ids), c.finish_reason) for c in only.choices] == [
        (1, "xy", (7, 8), "length"),
        (0, "z", (9,), None),
    ]
    assert (only.usage, only.handoff, only.prompt_logprobs) == (last.usage, last.handoff, last.prompt_logprobs)
    assert len(only.choices[0].logprobs) == 1


async def test_a_terminal_event_without_choices_takes_the_flush_along():
    script = [
        event("a "),
        event("b", finish="stop"),
        t.GenerateEvent(usage=t.Usage(prompt_tokens=3, completion_tokens=2)),
    ]

    class Late(Hold):
        def feed(self, e):
            return super().feed(e) if e.choices else [e]

    events = await play(script, Late(1))
    assert whole(events).text == "a b"
    assert [e.usage is not None for e in events][-1]


async def test_done_ends_early_with_the_usage_seen():
    events = await play(WORDS, Hold(5, done_at=2))
    assert events[-1].usage == t.Usage(prompt_tokens=3, completion_tokens=2)
    assert whole(events).text == "a b "


async def test_a_usage_of_the_transducers_own_is_kept():
    own = t.Usage(prompt_tokens=9, completion_tokens=9)
    events = await play(WORDS, Hold(5, done_at=2, own_usage=own))
    assert [e.usage for e in events if e.usage] == [own]
    assert events[-1].usage == own


async def test_a_swallowed_usage_is_restored():
    events = await play(WORDS, Hold(0, eats_usage=True))
    assert events[-1] == t.GenerateEvent(usage=WORDS[-1].usage)


async def test_a_cut_stream_is_not_made_to_look_whole():
    events = await play(WORDS[:2], Hold(0))
    assert [e.usage for e in events] == [None, None]


async def test_a_flush_passes_the_stages_behind():
    class Upper:
        done = False

        def feed(self, e):
            return [
                dataclasses.replace(e, choices=tuple(dataclasses.replace(c, text=c.text.upper()) for c in e.choices))
            ]

        def finish(self):
            return []

    assert whole(await play(WORDS, Hold(2), Upper())).text == "A B C D"


async def test_a_failing_flush_names_its_class():
    class Bad(Hold):
        def finish(self):
            raise KeyError("oops")

    with pytest.raises(InternalError, match=r"test_flow\..*Bad raised KeyError: 'oops'"):
        await play(WORDS, Bad())


async def test_collect_wants_the_terminal_event():
    async def stream(events):
        for e in events:
            yield e

    assert (await t.collect(stream(HELLO))).text == "hello world"
    with pytest.raises(InternalError, match="terminal event"):
        await t.collect(stream(HELLO[:1]))


async def test_collect_joins_choices_tools_and_logprobs():
    logprob = t.TokenLogprob(token_id=1, token="a", logprob=-0.5)
    script = [
        event("b", index=1, ids=(2,), logprobs=(logprob,)),
        event("a", index=0, ids=(1,), reasoning="hm", tool_calls=(t.ToolCallDelta(index=0, id="1", name="f"),)),
        event("", index=0, ids=(), tool_calls=(t.ToolCallDelta(index=0, arguments="{}"),), finish="tool_calls"),
        event("c", index=1, ids=(3,), logprobs=(logprob,), finish="stop", stop_reason="#", usage=3),
    ]
    made = whole(script)
    assert [c.text for c in made.choices] == ["a", "bc"]
    assert made.choices[0].tool_calls == [t.ToolCall(id="1", name="f", arguments="{}")]
    assert (made.choices[0].reasoning, made.choices[0].finish_reason) == ("hm", "tool_calls")
    assert made.choices[1].logprobs == [logprob, logprob]
    assert (made.choices[1].token_ids, made.choices[1].stop_reason) == ([2, 3], "#")
    assert t.Completion().text == ""
