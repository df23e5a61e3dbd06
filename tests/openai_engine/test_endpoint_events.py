"""Every part of an answer becomes the core's own event."""

import pytest
from endpoint_servers import DONE, USAGE, answer, ask, delta, scripted, sse, streamed

from trunnion import TextPrompt, TokensPrompt, collect
from trunnion.errors import Transient
from trunnion_openai.events import NO_ID


async def events_of(script, request):
    async with scripted(script, dialect="vllm") as (_, engine):
        return [event async for event in engine.generate(request)]


async def completion_of(script, request):
    async with scripted(script, dialect="vllm") as (_, engine):
        return await collect(engine.generate(request))


def call(index, **function):
    further = {"id": f"c{index}", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{"index": index, "function": function, **further}]}


async def test_tool_calls_come_in_pieces():
    script = streamed(
        delta(**call(0, name="f", arguments="")),
        delta(**call(0, arguments='{"a"')),
        delta(**call(0, arguments=":1}")),
        delta(**call(1, name="g", arguments="{}")),
        delta(finish="tool_calls"),
        USAGE,
        DONE,
    )
    events = await events_of(script, ask())
    assert len(events) == 6
    choice = (await completion_of(script, ask())).choices[0]
    assert [(c.id, c.name, c.arguments) for c in choice.tool_calls] == [("c0", "f", '{"a":1}'), ("c1", "g", "{}")]
    assert choice.finish_reason == "tool_calls"


async def test_whole_tool_calls():
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}] * 2
    body = {"choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    choice = (await completion_of(answer(200, body), ask(final=True))).choices[0]
    assert [(c.id, c.name) for c in choice.tool_calls] == [("c", "f")] * 2


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_has_two_names(name):
    script = streamed(delta(**{name: "hm"}), delta("a"), delta(finish="stop"), USAGE, DONE)
    choice = (await completion_of(script, ask())).choices[0]
    assert (choice.reasoning, choice.text) == ("hm", "a")


async def test_a_refusal_is_what_the_model_said():
    script = streamed(delta(refusal="I will not"), delta(finish="stop"), USAGE, DONE)
    assert (await completion_of(script, ask())).text == "I will not"


async def test_several_choices_in_one_event():
    choices = [{"index": i, "delta": {"content": str(i)}, "finish_reason": "length"} for i in range(2)]
    script = streamed(sse({"choices": choices}), USAGE, DONE)
    completion = await completion_of(script, ask(sampling={"n": 2}))
    assert [(c.text, c.finish_reason) for c in completion.choices] == [("0", "length"), ("1", "length")]


async def test_usage_is_on_the_very_last_event_and_each_choice_ends_once():
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    script = streamed(
        sse({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage}),
        delta(finish="stop"),
        delta(finish="stop"),
        DONE,
    )
    events = await events_of(script, ask())
    assert [event.usage is not None for event in events] == [False, False, True]
    assert [c.finish_reason for event in events for c in event.choices] == [None, "stop"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("function_call", "tool_calls"),
     ("eos_token", "stop"), ("max_tokens", "length")],
)  # fmt: skip
async def test_finish_reasons(theirs, ours):
    script = streamed(delta("a"), delta(finish=theirs), USAGE, DONE)
    assert (await completion_of(script, ask())).choices[0].finish_reason == ours


async def test_a_request_that_the_endpoint_gave_up():
    async with scripted(streamed(delta("a"), delta(finish="abort"), USAGE, DONE)) as (_, engine):
        with pytest.raises(Transient, match="abort"):
            await collect(engine.generate(ask()))


async def test_what_ended_it_and_which_tokens():
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "stop_reason": "x", "token_ids": [3, 4]}
    completion = await completion_of(streamed(sse({"choices": [choice]}), DONE), ask())
    assert completion.choices[0].stop_reason == "x"
    assert completion.choices[0].token_ids == [3, 4]
    assert completion.usage.completion_tokens == 2  # counted, as nobody reported them


async def test_logprobs_of_the_chat_api():
    one = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -0.1}]}
    choice = {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [one]}, "finish_reason": "stop"}
    completion = await completion_of(streamed(sse({"choices": [choice]}), USAGE, DONE), ask(sampling={"logprobs": 1}))
    (token,) = completion.choices[0].logprobs
    assert (token.token, token.logprob, token.token_id) == ("a", -0.5, NO_ID)
    assert [(t.token, t.logprob) for t in token.top] == [("b", -0.1)]


@pytest.mark.parametrize("prompt", [TextPrompt(text="Hi"), TokensPrompt(token_ids=(1, 2))])
async def test_the_completions_api(prompt):
    def text(value, **further):
        return sse({"choices": [{"index": 0, "text": value, **further}]})

    logprobs = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -0.1, "c": -3}]}
    script = streamed(text("a", logprobs=logprobs), text("b"), text("", finish_reason="length"), DONE)
    completion = await completion_of(script, ask(prompt=prompt, sampling={"logprobs": 2, "max_tokens": 2}))
    assert completion.text == "ab"
    assert completion.choices[0].finish_reason == "length"
    (token,) = completion.choices[0].logprobs
    assert [t.token for t in token.top] == ["b", "a"]
    assert completion.usage.prompt_tokens == (2 if prompt.kind == "token_ids" else 0)


async def test_logprobs_of_the_prompt():
    entries = [None, {"7": {"logprob": -2.0, "decoded_token": "x"}, "9": {"logprob": -0.1, "decoded_token": "y"}}]
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "prompt_logprobs": entries}
    completion = await completion_of(answer(200, body), ask(sampling={"prompt_logprobs": 1}))
    none, token = completion.prompt_logprobs
    assert none is None
    assert (token.token_id, token.token, [t.token_id for t in token.top]) == (7, "x", [9])


async def test_whole_answers_are_one_event():
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    (event,) = await events_of(answer(200, body), ask(final=True))
    assert event.choices[0].text == "a"
    assert event.usage is not None
