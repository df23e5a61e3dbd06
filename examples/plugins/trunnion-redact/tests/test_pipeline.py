"""The plugin in a pipeline: it joins by itself, and the engine never sees a value."""

import asyncio
import json
from importlib import metadata

import pytest
import trunnion as t
from trunnion.errors import ConfigError, InvalidArgument, PluginNotFound, UnsupportedFeature

BOB, TEL = "bob@example.com", "+1 650 253 0000"
TEXT = f"Write to {BOB} or call {TEL} about bob@example.com."


def ask(prompt=TEXT, **fields):
    if isinstance(prompt, str):
        prompt = t.TextPrompt(text=prompt)
    return t.GenerateRequest(prompt=prompt, **fields)


def watched(pipeline):
    """Return the list of requests the engine gets from now on."""
    seen, generate = [], pipeline.engine.generate

    def spy(request):
        seen.append(request)
        return generate(request)

    pipeline.engine.generate = spy
    return seen


@pytest.mark.parametrize("delivery", ["delta", "final"])
@pytest.mark.parametrize("n", [1, 3])
async def test_an_echo_comes_back_whole_and_the_engine_saw_placeholders(opened, delivery, n):
    async with opened({"default_max_tokens": 100}) as pipeline:
        seen = watched(pipeline)
        whole = await pipeline.complete(ask(delivery=delivery, sampling=t.SamplingParams(n=n)))
        assert [choice.text.split() for choice in whole.choices] == [TEXT.split()] * n
        assert seen[0].prompt.text == "Write to <EMAIL_1> or call <PHONE_1> about <EMAIL_1>."
        assert seen[0].notes is None
        assert BOB not in repr(seen[0])
        assert "redact_restore" in pipeline.explain()


async def test_messages_are_masked_too(opened):
    async with opened() as pipeline:
        seen = watched(pipeline)
        messages = [{"role": "user", "content": [{"type": "text", "text": f"I am {BOB}"}]}]
        assert (await pipeline.complete(ask(t.MessagesPrompt(messages=messages)))).text == f"user: I am {BOB} "
        assert seen[0].prompt.messages[0]["content"][0]["text"] == "I am <EMAIL_1>"


async def test_requests_side_by_side_do_not_mix(opened):
    async with opened({"tpot": 0.001}) as pipeline:
        texts = [f"to user{i}@example.com and other{i % 3}@example.com" for i in range(40)]
        answers = await asyncio.gather(*(pipeline.complete(ask(text)) for text in texts))
    assert [answer.text.strip() for answer in answers] == texts


async def test_a_long_prompt_is_masked_on_a_thread(opened):
    words = "ordinary words " * 200
    async with opened({"default_max_tokens": 1000}) as pipeline:
        seen = watched(pipeline)
        assert (await pipeline.complete(ask(words + BOB))).text.split()[-1] == BOB
        assert seen[0].prompt.text.endswith("<EMAIL_1>")


async def test_token_ids_are_refused_unless_they_may_pass(opened):
    prompt = t.TokensPrompt(token_ids=(1, 2))
    async with opened() as pipeline:
        with pytest.raises(UnsupportedFeature, match="token_ids='pass'") as caught:
            await pipeline.complete(ask(prompt))
        assert caught.value.param == "prompt"
    async with opened(token_ids="pass") as pipeline:
        assert (await pipeline.complete(ask(prompt))).text == "1 2 "


async def test_settings_have_their_effect(opened):
    async with opened(kinds=["phone"], default_region="US", allow=["+1 650 253 0000"]) as pipeline:
        seen = watched(pipeline)
        await pipeline.complete(ask(f"{BOB} {TEL} 415-555-2671"))
        assert seen[0].prompt.text == f"{BOB} {TEL} <PHONE_1>"


async def test_a_stop_string_that_is_masked_stops(opened):
    async with opened() as pipeline:
        answer = await pipeline.complete(ask(f"one {BOB} two", sampling=t.SamplingParams(stop=(BOB,))))
        assert (answer.text, answer.choices[0].stop_reason) == ("one ", BOB)
        with pytest.raises(InvalidArgument, match="would cut"):
            await pipeline.complete(ask(sampling=t.SamplingParams(stop=(">",))))


@pytest.mark.parametrize(
    ("settings", "error", "param"),
    [({"kind": ["email"]}, ConfigError, "kind"), ({"default_region": "XX"}, ConfigError, "default_region")],
)
async def test_wrong_settings_stop_the_start(opened, settings, error, param):
    with pytest.raises(error) as caught:
        async with opened(**settings):
            pass
    assert caught.value.param == param


async def test_no_pipeline_opens_without_the_stage(opened, monkeypatch):
    stages = t.Registry.stage

    def without(registry, name):
        if name == "redact_restore":
            raise PluginNotFound("it is gone")
        return stages(registry, name)

    monkeypatch.setattr(t.Registry, "stage", without)
    with pytest.raises(PluginNotFound, match="hooks 'redact' rely on a stage: it is gone"):
        async with opened():
            pass


async def test_an_abandoned_answer_frees_its_slot(opened):
    async with opened({"tpot": 0.01, "slots": 1, "default_max_tokens": 1000}) as pipeline:
        events = pipeline.generate(ask("word " * 900 + BOB))
        await anext(events)
        await events.aclose()
        assert pipeline.load().running == 0
        assert (await pipeline.complete(ask(BOB))).text.strip() == BOB


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_letter_by_letter_in_reasoning_text_and_calls_of_every_choice(delivery):
    group = "trunnion.plugins"
    letters = metadata.EntryPoint(name="letters", value="letters", group=group)
    registry = t.Registry(t.PluginPolicy(), entry_points=(*metadata.entry_points(group=group), letters))
    tools = ({"type": "function", "function": {"name": "mail", "parameters": {}}},)
    async with t.open_pipeline(t.EngineSpec(engine="letters"), registry=registry) as pipeline:
        request = ask(delivery=delivery, tools=tools, sampling=t.SamplingParams(n=2))
        events = [event async for event in pipeline.generate(request)]
        assert "@" not in pipeline.engine.seen[0].prompt.text
    whole = t.Completion()
    for event in events:
        whole.add(event)
    assert len(whole.choices) == 2
    for choice in whole.choices:
        assert (choice.text, choice.reasoning) == (TEXT, TEXT)
        assert json.loads(choice.tool_calls[0].arguments) == {"to": TEXT}
    assert whole.usage is not None
    assert [event.usage is None for event in events[:-1]] == [True] * (len(events) - 1)
