"""The real client of OpenAI, against a real server: answers are what its own types allow, and nothing else."""

import asyncio
import struct

import openai
import pytest
from openai.types import Completion, CompletionChoice, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from strict_types import every

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Grüß dich 👋"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def strictly(model):
    """Fail on any field, however deep, that OpenAI's own type does not have."""
    for part in every(model):
        value = part.to_dict()
        if isinstance(part, Completion):  # one type for whole answers and chunks; OpenAI's own chunks break it
            for choice in value["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
        if not isinstance(part, CompletionChoice):
            type(part).model_validate(value, strict=True)
    return model


def test_chat(client, model):
    answer = strictly(client.chat.completions.create(model=model.name, messages=MESSAGES, temperature=0.5))
    assert isinstance(answer, ChatCompletion)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == model.name
    assert answer.choices[0].message.content == "Hello wörld"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 7
    assert answer.usage.completion_tokens == 3
    assert answer.usage.total_tokens == 10
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    assert model.last.delivery == "final"
    assert model.last.prompt.messages == MESSAGES
    assert model.last.sampling.temperature == 0.5
    assert model.slots == 0


def test_chat_stream(client, model):
    chunks = list(client.chat.completions.create(model=model.name, messages=MESSAGES, stream=True))
    for chunk in chunks:
        assert isinstance(strictly(chunk), ChatCompletionChunk)
    assert [c.choices[0].delta.content for c in chunks] == ["Hel", "lo", " wörld", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks] == [None, None, None, "stop"]
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in chunks)
    assert model.last.delivery == "delta"


def test_chat_stream_with_usage(client, model):
    options = {"include_usage": True}
    stream = client.chat.completions.create(model=model.name, messages=MESSAGES, stream=True, stream_options=options)
    chunks = [strictly(c) for c in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 10
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4
    assert all(c.usage is None for c in chunks[:-1])


def test_several_choices(client, model):
    answer = strictly(client.chat.completions.create(model=model.name, messages=MESSAGES, n=3))
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert {c.message.content for c in answer.choices} == {"Hello wörld"}
    texts = {}
    for chunk in client.chat.completions.create(model=model.name, messages=MESSAGES, n=3, stream=True):
        strictly(chunk)
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert texts == dict.fromkeys(range(3), "Hello wörld")


def test_logprobs(client, model):
    ask = {"model": model.name, "messages": MESSAGES, "logprobs": True, "top_logprobs": 2}
    answer = strictly(client.chat.completions.create(**ask))
    content = answer.choices[0].logprobs.content
    assert [t.token for t in content] == ["Hel", "lo", " wörld"]
    assert bytes(content[2].bytes).decode() == " wörld"
    assert [t.logprob for t in content[0].top_logprobs] == [-9999.0, -1.0]
    assert model.last.sampling.logprobs == 2
    chunks = [strictly(c) for c in client.chat.completions.create(**ask, stream=True)]
    assert [c.choices[0].logprobs.content[0].token for c in chunks[:3]] == ["Hel", "lo", " wörld"]


def test_tool_calls(client, add_model):
    model = add_model(pieces=[], tool_call=("weather", ['{"city":', ' "Köln"}']))
    ask = {"model": model.name, "messages": MESSAGES, "tools": [TOOL], "tool_choice": "auto"}
    answer = strictly(client.chat.completions.create(**ask, parallel_tool_calls=False))
    call = answer.choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city": "Köln"}')
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    assert model.last.tools == (TOOL,)
    assert model.last.tool_choice == "auto"
    assert model.last.parallel_tool_calls is False
    with client.chat.completions.stream(**ask) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"city": "Köln"}'


def test_reasoning_has_its_own_field(client, add_model):
    model = add_model(reasoning="hmm")
    answer = client.chat.completions.create(model=model.name, messages=MESSAGES)
    assert answer.choices[0].message.reasoning_content == "hmm"
    chunks = list(client.chat.completions.create(model=model.name, messages=MESSAGES, stream=True))
    assert chunks[0].choices[0].delta.reasoning_content == "hmm"


@pytest.mark.parametrize(
    ("prompt", "kinds"),
    [
        ("Once", ["text"]),
        (["Once", "Twice"], ["text", "text"]),
        ([1, 2, 3], ["token_ids"]),
        ([[1, 2], [3]], ["token_ids", "token_ids"]),
    ],
)
def test_completions(client, model, prompt, kinds):
    answer = strictly(client.completions.create(model=model.name, prompt=prompt, n=2))
    assert isinstance(answer, Completion)
    assert [c.index for c in answer.choices] == list(range(2 * len(kinds)))
    assert {c.text for c in answer.choices} == {"Hello wörld"}
    assert answer.usage.completion_tokens == 6 * len(kinds)
    assert [r.prompt.kind for r in model.requests] == kinds
    assert len({r.request_id for r in model.requests}) == len(kinds)
    assert model.last.sampling.max_tokens == 16
    texts = {}
    for chunk in client.completions.create(model=model.name, prompt=prompt, n=2, stream=True):
        strictly(chunk)
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert texts == dict.fromkeys(range(2 * len(kinds)), "Hello wörld")
    assert model.slots == 0


def test_completion_logprobs(client, model):
    answer = strictly(client.completions.create(model=model.name, prompt="x", logprobs=2))
    found = answer.choices[0].logprobs
    assert found.tokens == ["Hel", "lo", " wörld"]
    assert found.text_offset == [0, 3, 5]
    assert found.top_logprobs[0] == {"t0": -9999.0, "t1": -1.0}
    chunks = list(client.completions.create(model=model.name, prompt="x", logprobs=2, stream=True))
    assert [c.choices[0].logprobs.text_offset for c in chunks[:3]] == [[0], [3], [5]]


def test_embeddings(client, model):
    answer = strictly(client.embeddings.create(model=model.name, input=["a", "b"], encoding_format="float"))
    assert isinstance(answer, CreateEmbeddingResponse)
    assert [e.embedding for e in answer.data] == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]
    assert answer.usage.prompt_tokens == 6
    # Without a format the client asks for base64 and decodes it itself.
    answer = client.embeddings.create(model=model.name, input="a", dimensions=2)
    assert answer.data[0].embedding == [0.5, -0.25]
    assert model.embedded[-1][1] == 2


def test_embeddings_base64_is_little_endian_float32(web, model):
    import base64

    body = {"model": model.name, "input": [1, 2], "encoding_format": "base64"}
    found = web.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(found)) == (0.5, -0.25, 0.0)


def test_models(client, model):
    listed = {m.id: m for m in client.models.list()}
    assert {model.name, "base", "shouting"} <= set(listed)
    assert listed["shouting"].parent == "base"
    assert client.models.retrieve(model.name).max_model_len == 128


def test_adapters_by_name(client, running, add_model):
    base = dict(running.app.models)["base"]
    for name in ("shouting", "base:shouting"):
        assert client.chat.completions.create(model=name, messages=MESSAGES).model == name
        assert base.last.adapter == "shouting"
    client.chat.completions.create(model="base", messages=MESSAGES)
    assert base.last.adapter is None
    other = add_model(adapters={"shouting"})
    with pytest.raises(openai.NotFoundError, match="several models"):
        client.chat.completions.create(model="shouting", messages=MESSAGES)
    client.chat.completions.create(model=f"{other.name}:shouting", messages=MESSAGES)
    assert other.last.adapter == "shouting"


async def test_hundred_at_once(running, add_model):
    model = add_model(delay=0.02)
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as client:

        async def one(number):
            messages = [{"role": "user", "content": str(number)}]
            if number % 2:
                answer = await client.chat.completions.create(model=model.name, messages=messages)
                return answer.choices[0].message.content
            stream = await client.chat.completions.create(model=model.name, messages=messages, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        texts = await asyncio.gather(*[one(i) for i in range(100)])
    assert set(texts) == {"Hello wörld"}
    assert model.wait_free()
    assert model.peak > 20
    assert len({r.request_id for r in model.requests}) == 100


@pytest.mark.parametrize("text", ["naïve", "日本語", "👩‍👩‍👧", 'a"b\\c\n\t\x01\u2028', "\ud800x"])
def test_unicode_survives_both_ways(client, add_model, text):
    model = add_model(pieces=["a", text, text])
    sent = text.encode("utf-8", "replace").decode()
    messages = [{"role": "user", "content": sent}]
    answer = client.chat.completions.create(model=model.name, messages=messages)
    assert answer.choices[0].message.content == "a" + 2 * sent
    assert model.last.prompt.messages[0]["content"] == sent
    stream = client.chat.completions.create(model=model.name, messages=messages, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "a" + 2 * sent
