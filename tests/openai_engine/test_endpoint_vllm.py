"""Against vLLM's own server: what is declared *yes* for this dialect has its effect."""

import asyncio
import json

import pytest
from endpoint_servers import ask, engine_at

from trunnion import Choice, Grammar, JsonObject, JsonSchema, MessagesPrompt, Regex, TextPrompt, TokensPrompt, collect
from trunnion.errors import AdapterNotFound, ContextOverflow, InvalidArgument, TrunnionError
from trunnion_demo import PROMPTS, adapter_paths
from trunnion_openai.events import NO_ID

pytestmark = pytest.mark.engine
QUESTION = "What is the capital of France?"


@pytest.fixture
async def engine(vllm_url):
    async with engine_at(vllm_url, model=None, check_endpoint=True) as engine:
        yield engine


async def complete(engine, text=QUESTION, **fields):
    sampling = {"temperature": 0.0, "max_tokens": 30, **fields.pop("sampling", {})}
    return await collect(engine.generate(ask(text, sampling=sampling, **fields)))


async def test_what_the_list_of_models_tells(engine):
    info = engine.info
    assert (info.model, info.context_length, info.details["dialect"]) == ("demo", 1024, "vllm")
    assert set(info.adapters) == set(adapter_paths())
    await engine.check_health()


@pytest.mark.parametrize("final", [False, True], ids=["delta", "final"])
async def test_the_thirty_prompts_and_the_adapters(engine, final):
    wanted = [(p, None, p.expected) for p in PROMPTS if not p.tools]
    wanted += [(p, name, text) for p in PROMPTS if not p.tools for name, text in p.adapted.items()]
    requests = [
        ask(
            prompt=MessagesPrompt(messages=prompt.messages),
            adapter=adapter,
            final=final,
            sampling={"temperature": 0.0, "max_tokens": prompt.max_tokens},
        )
        for prompt, adapter, _ in wanted
    ]
    answers = await asyncio.gather(*(collect(engine.generate(request)) for request in requests))
    for answer, (prompt, adapter, text) in zip(answers, wanted, strict=True):
        assert answer.text.strip() == text.strip(), (prompt.name, adapter)
        assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("final", [False, True], ids=["delta", "final"])
async def test_tool_calls(engine, final):
    prompt = next(p for p in PROMPTS if p.tools and "<tool_call>" in p.expected)
    request = ask(
        prompt=MessagesPrompt(messages=prompt.messages),
        tools=prompt.tools,
        final=final,
        sampling={"temperature": 0.0, "max_tokens": prompt.max_tokens},
    )
    choice = (await collect(engine.generate(request))).choices[0]
    inner = json.loads(prompt.expected.split("<tool_call>")[1].split("</tool_call>")[0])
    assert choice.finish_reason == "tool_calls"
    assert choice.tool_calls[0].name == inner["name"]
    assert json.loads(choice.tool_calls[0].arguments) == inner["arguments"]


# Extra field -> sampling, and what must be true of the answer.
EFFECTS = {
    "top_k": ({"top_k": 1, "temperature": 2.0}, lambda a, plain: a.text == plain.text),
    "min_p": ({"min_p": 1.0, "temperature": 2.0}, lambda a, plain: a.text == plain.text),
    "ignore_eos": ({"ignore_eos": True}, lambda a, _: a.usage.completion_tokens == 30),
    "min_tokens": ({"min_tokens": 25}, lambda a, _: a.usage.completion_tokens >= 25),
    "max_tokens": (
        {"max_tokens": 3},
        lambda a, _: (a.usage.completion_tokens, a.choices[0].finish_reason) == (3, "length"),
    ),
    "n": ({"n": 3, "temperature": 1.0}, lambda a, _: len(a.choices) == 3),
    "stop": ({"stop": ("capital",)}, lambda a, _: "capital" not in a.text and a.choices[0].stop_reason == "capital"),
    "include_stop_str_in_output": (
        {"stop": ("capital",), "include_stop_str_in_output": True},
        lambda a, _: a.text.endswith("capital"),
    ),
    "repetition_penalty": ({"repetition_penalty": 5.0}, lambda a, plain: a.text != plain.text),
    "seed": ({"seed": 3, "temperature": 2.0}, lambda a, plain: a.text != plain.text),
}


@pytest.mark.parametrize("name", EFFECTS)
async def test_a_field_has_its_effect(engine, name):
    sampling, holds = EFFECTS[name]
    answer = await complete(engine, sampling=sampling)
    assert holds(answer, await complete(engine)), answer


async def test_the_same_seed_gives_the_same_text(engine):
    first, second = [await complete(engine, sampling={"seed": 3, "temperature": 2.0}) for _ in range(2)]
    assert first.text == second.text


SCHEMA = {"type": "object", "properties": {"name": {"enum": ["Ann", "Bob"]}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (Regex(pattern="[ab]{3}"), lambda t: len(t) == 3 and set(t) <= {"a", "b"}),
        (Choice(choices=("yes", "no")), lambda t: t in ("yes", "no")),
        (Grammar(grammar='root ::= "x" | "y"'), lambda t: t in ("x", "y")),
        (JsonSchema(schema=SCHEMA), lambda t: json.loads(t)["name"] in ("Ann", "Bob")),
        (JsonObject(), lambda t: t.lstrip().startswith("{")),
    ],
    ids=lambda v: getattr(v, "kind", ""),
)
async def test_output_formats(engine, wanted, holds):
    answer = await complete(engine, output_format=wanted, sampling={"max_tokens": 60})
    assert holds(answer.text), answer.text


@pytest.mark.parametrize("final", [False, True], ids=["delta", "final"])
async def test_logprobs(engine, final):
    answer = await complete(engine, sampling={"logprobs": 2, "max_tokens": 4}, final=final)
    tokens = answer.choices[0].logprobs
    assert len(tokens) == 4
    assert "".join(token.token for token in tokens) == answer.text
    assert all(token.logprob <= 0 and len(token.top) == 2 and token.token_id == NO_ID for token in tokens)


async def test_logprobs_of_the_prompt(engine):
    answer = await complete(engine, sampling={"prompt_logprobs": 1, "max_tokens": 2})
    assert answer.prompt_logprobs[0] is None
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens
    assert all(token.token_id >= 0 and len(token.top) == 1 for token in answer.prompt_logprobs[1:])


async def test_token_ids_go_on_to_the_end(engine):
    prompt = TokensPrompt(token_ids=tuple(range(10, 900)))
    answer = await collect(engine.generate(ask(prompt=prompt, sampling={"temperature": 0.0, "ignore_eos": True})))
    assert answer.usage.total_tokens == 1024  # to the end of the context, as the contract has it


async def test_token_ids_come_where_they_are_asked_for(engine):
    answer = await complete(engine, extra={"openai": {"return_token_ids": True}})
    assert len(answer.choices[0].token_ids) == answer.usage.completion_tokens


async def test_refusals(engine):
    with pytest.raises(ContextOverflow):
        await complete(engine, "word " * 3000)
    with pytest.raises(AdapterNotFound):
        await complete(engine, adapter="nobody")
    with pytest.raises(InvalidArgument):
        await complete(engine, output_format=Regex(pattern="(["))
    with pytest.raises(TrunnionError):
        await engine.embed([TextPrompt(text="x")])


async def test_hundreds_at_once(engine):
    answers = await asyncio.gather(*(complete(engine, sampling={"max_tokens": 2}) for _ in range(200)))
    assert len({answer.text for answer in answers}) == 1
