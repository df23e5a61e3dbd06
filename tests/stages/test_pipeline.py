"""The stages in a pipeline, around an engine that knows token ids alone."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

import trunnion
from trunnion import GenerateRequest, MessagesPrompt, SamplingParams
from trunnion.errors import InvalidArgument, UnsupportedFeature

CHAT = MessagesPrompt(messages=[{"role": "user", "content": "Hello"}])
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
async def pipeline(byte_level):
    spec = trunnion.engine_spec("sim", None, {"tokenizer": str(byte_level), "tokens_per_event": 3})
    async with trunnion.open_pipeline(spec) as opened:
        yield opened


async def events_of(pipeline, **request):
    sampling = SamplingParams(max_tokens=60, **request.pop("sampling", {}))
    return [event async for event in pipeline.generate(GenerateRequest(prompt=CHAT, sampling=sampling, **request))]


async def test_messages_become_tokens_and_tokens_text(pipeline, byte_level):
    tokenizer = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    prompt = "<s><|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    for delivery in ("delta", "final"):
        events = await events_of(pipeline, delivery=delivery, sampling={"n": 2})
        usage = events[-1].usage
        assert usage.prompt_tokens == len(tokenizer.encode(prompt, add_special_tokens=False).ids)
        assert usage.completion_tokens == 120
        for index in (0, 1):
            deltas = [choice for event in events for choice in event.choices if choice.index == index]
            ids = [number for delta in deltas for number in delta.token_ids]
            assert "".join(delta.text for delta in deltas) == tokenizer.decode(ids)
            assert len(deltas) == (1 if delivery == "final" else 20)


@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_stop_strings_free_the_engine_early(pipeline, delivery):
    text = "".join(choice.text for event in await events_of(pipeline) for choice in event.choices)
    middle = len(text) // 2
    stop = text[middle : middle + 3]
    events = await events_of(pipeline, sampling={"stop": (stop,)}, delivery=delivery)
    choices = [choice for event in events for choice in event.choices]
    assert "".join(choice.text for choice in choices) == text.split(stop)[0]
    assert [(c.finish_reason, c.stop_reason) for c in choices if c.finish_reason] == [("stop", stop)]
    assert [event.usage is not None for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1].usage.completion_tokens < 60 or delivery == "final"
    assert pipeline.load().running == 0


async def test_tools_are_planned_for_messages(pipeline):
    request = GenerateRequest(prompt=CHAT, tools=(TOOL,), sampling=SamplingParams(max_tokens=4))
    plan = pipeline.plan(request)
    assert plan.request_stages == ("chat_template", "tokenize")
    assert plan.stream_stages == ("detokenize", "tool_calls")
    (prepared,) = pipeline.prepare([request])
    assert '"weather"' in prepared.request.prompt.text
    assert prepared.request.tools == ()


async def test_a_forced_call_needs_structured_output(pipeline, byte_level):
    request = GenerateRequest(prompt=CHAT, tools=(TOOL,), tool_choice="required")
    assert pipeline.plan(request).request_stages == ("tool_choice", "chat_template", "tokenize")
    assert (await pipeline.complete(request)).choices[0].tool_calls[0].name == "weather"
    lacking = {"tokenizer": str(byte_level), "unsupported": ["output_format.json_schema"]}
    async with trunnion.open_pipeline(trunnion.engine_spec("sim", None, lacking)) as unable:
        with pytest.raises(UnsupportedFeature, match="json_schema"):
            await unable.complete(request)
    with pytest.raises(InvalidArgument, match="not among the tools"):
        await pipeline.complete(request.with_(tool_choice={"type": "function", "function": {"name": "x"}}))


async def test_the_tokenizer_is_there_before_the_first_request(byte_level, monkeypatch):
    from trunnion_stages import _tokenizers

    monkeypatch.setattr(_tokenizers, "_cache", {})
    spec = trunnion.engine_spec("sim", None, {"tokenizer": str(byte_level)})
    async with trunnion.open_pipeline(spec) as pipeline:
        monkeypatch.setattr(_tokenizers, "_load", None)
        assert await events_of(pipeline)
