"""Against our own HTTP surface: both sides of the wire are ours, and what one says the other must hear."""

import asyncio

import pytest
from endpoint_servers import ask, engine_at

import trunnion
from trunnion import GenerateRequest, JsonObject, MessagesPrompt, SamplingParams, TextPrompt, TokensPrompt, collect
from trunnion.errors import AdapterNotFound, ContextOverflow, TrunnionError, UnsupportedFeature

WORDS = "one two three four five six"


@pytest.mark.parametrize("final", [False, True], ids=["delta", "final"])
async def test_a_chat(surface, final):
    async with engine_at(surface, check_endpoint=True) as engine:
        assert engine.info.details["owned_by"] == "trunnion"
        assert engine.info.adapters == ("loud",)
        assert engine.info.context_length == 32768
        completion = await collect(engine.generate(ask(WORDS, final=final, sampling={"max_tokens": 4})))
    assert completion.text.split() == ["user:", "one", "two", "three"]
    assert completion.choices[0].finish_reason == "length"
    assert (completion.usage.completion_tokens, completion.usage.prompt_tokens > 4) == (4, True)


@pytest.mark.parametrize("final", [False, True], ids=["delta", "final"])
@pytest.mark.parametrize("prompt", [TextPrompt(text=WORDS), TokensPrompt(token_ids=(1, 2, 3, 4))])
async def test_a_completion(surface, prompt, final):
    async with engine_at(surface) as engine:
        request = ask(prompt=prompt, final=final, sampling={"max_tokens": 3, "n": 2})
        completion = await collect(engine.generate(request))
    assert len(completion.choices) == 2
    assert {choice.finish_reason for choice in completion.choices} == {"length"}
    assert completion.usage.completion_tokens == 6


async def test_an_adapter_is_a_model(surface):
    async with engine_at(surface) as engine:
        request = ask(WORDS, sampling={"max_tokens": 4}, adapter="loud")
        assert (await collect(engine.generate(request))).text.startswith("USER: ONE")
        with pytest.raises(AdapterNotFound):
            await collect(engine.generate(ask(adapter="nobody")))


async def test_refusals_come_through_with_their_field(surface):
    async with engine_at(surface) as engine:
        for fields, kind, param in (
            ({"sampling": {"top_k": 3}}, UnsupportedFeature, "top_k"),
            ({"sampling": {"seed": 1, "logprobs": 2}}, UnsupportedFeature, "logprobs"),
            ({"output_format": JsonObject()}, UnsupportedFeature, "output_format"),
            ({"sampling": {"max_tokens": 40_000}}, ContextOverflow, "messages"),
        ):
            for final in (True, False):
                with pytest.raises(kind) as caught:
                    await collect(engine.generate(ask(final=final, **fields)))
                assert (caught.value.param or "").startswith(param), caught.value


async def test_many_at_once(surface):
    async with engine_at(surface) as engine:
        requests = [ask(f"{i} {WORDS}", sampling={"max_tokens": 2}) for i in range(200)]
        answers = await asyncio.gather(*(collect(engine.generate(request)) for request in requests))
    assert [one.text.split()[1] for one in answers] == [str(i) for i in range(200)]


async def test_through_the_pipeline(surface):
    spec = trunnion.engine_spec("openai", "m", {"base_url": surface})
    async with trunnion.open_pipeline(spec) as pipeline:
        assert pipeline.plan(ask()).request_stages == ()  # messages go as they are
        assert (await pipeline.complete(ask(WORDS, sampling={"max_tokens": 3}))).text.split()[0] == "user:"
        assert pipeline.load().running == 0
        with pytest.raises(TrunnionError):
            await pipeline.embed([TextPrompt(text="x")])  # this surface's engine makes none


def test_in_a_script(surface):
    assert trunnion.generate(WORDS, engine="openai", config={"base_url": surface}, max_tokens=3).startswith("user: one")


async def test_equal_to_the_engine_itself(surface):
    sampling = SamplingParams(max_tokens=5, temperature=0.0, seed=3)
    request = GenerateRequest(prompt=MessagesPrompt(messages=({"role": "user", "content": WORDS},)), sampling=sampling)
    config = {"tpot": 0.0, "output": "echo"}
    async with trunnion.open_pipeline(trunnion.engine_spec("sim", None, config)) as near:
        wanted = await near.complete(request)
    async with engine_at(surface) as engine:
        got = await collect(engine.generate(request))
    assert (got.text, got.usage) == (wanted.text, wanted.usage)
