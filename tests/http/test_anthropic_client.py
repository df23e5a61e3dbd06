"""The real client of Anthropic, against a real server: answers are what its own types allow, and nothing else."""

import contextlib

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from http_fakes import RunningServer
from pydantic import TypeAdapter
from strict_types import every

import trunnion
from trunnion_http import ModelDirectory, PipelineModel, create_app

MESSAGES = [{"role": "user", "content": "Grüß dich 👋"}]
TOOL = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
EVENT = TypeAdapter(RawMessageStreamEvent)


def strictly(model):
    """Fail on any field, however deep, that Anthropic's own type does not have."""
    for part in every(model):
        type(part).model_validate(part.to_dict(), strict=True)
    return model


def strict_event(event):
    EVENT.validate_python(event.to_dict(), strict=True)
    return strictly(event)


def in_order(events):
    """Fail where blocks overlap, are numbered wrongly, or something stands outside of them; return the types."""
    types = [event.type for event in events]
    assert types[0] == "message_start"
    assert types[-2:] == ["message_delta", "message_stop"]
    count, open_block = 0, None
    for event in events[1:-2]:
        if event.type == "content_block_start":
            assert (open_block, event.index) == (None, count)
            open_block = event.index
            count += 1
        elif event.type == "content_block_delta":
            assert event.index == open_block
        else:
            assert (event.type, event.index) == ("content_block_stop", open_block)
            open_block = None
    assert open_block is None
    return types


@pytest.fixture(scope="module")
def claude(running):
    with anthropic.Anthropic(base_url=running.url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture
def ask(claude, model):
    """Send a message with what must be there filled in; keyword arguments replace it."""

    def send(**body):
        return claude.messages.create(**{"model": model.name, "max_tokens": 32, "messages": MESSAGES, **body})

    return send


def test_a_message(ask, model):
    answer = strictly(ask(system="Be kind.", extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 7}))
    assert isinstance(answer, Message)
    assert answer.id.startswith("msg_")
    assert answer.id == f"msg_{answer._request_id}"
    assert answer.model == model.name
    assert [block.text for block in answer.content] == ["Hello wörld"]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (3, 4, 3)
    last = model.last
    assert last.delivery == "final"
    assert last.prompt.messages == [{"role": "system", "content": "Be kind."}, *MESSAGES]
    assert last.prompt.add_generation_prompt
    sampling = last.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (32, 0.5, 0.9, 7)
    assert model.slots == 0


def test_a_stream(ask, model):
    events = [strict_event(event) for event in ask(stream=True)]
    assert in_order(events)[1] == "content_block_start"
    assert [e.delta.text for e in events if e.type == "content_block_delta"] == ["Hel", "lo", " wörld"]
    assert events[0].message.content == []
    assert events[0].message.stop_reason is None
    closing = events[-2]
    assert closing.delta.stop_reason == "end_turn"
    assert (closing.usage.input_tokens, closing.usage.cache_read_input_tokens, closing.usage.output_tokens) == (3, 4, 3)
    assert model.last.delivery == "delta"


def test_the_streaming_helper_gathers_what_a_plain_answer_says(claude, ask, model):
    whole = ask()
    with claude.messages.stream(model=model.name, max_tokens=32, messages=MESSAGES) as stream:
        assert list(stream.text_stream) == ["Hel", "lo", " wörld"]
        final = stream.get_final_message()
        assert stream.request_id == final.id.removeprefix("msg_")
    assert final.usage.input_tokens == whole.usage.input_tokens
    assert final.to_dict() | {"id": ""} == whole.to_dict() | {"id": ""}


async def test_async(running, model):
    async with anthropic.AsyncAnthropic(base_url=running.url, api_key="none", max_retries=0, timeout=20) as client:
        body = {"model": model.name, "max_tokens": 9, "messages": MESSAGES}
        assert strictly(await client.messages.create(**body)).content[0].text == "Hello wörld"
        events = [strict_event(event) async for event in await client.messages.create(**body, stream=True)]
        in_order(events)
        async with client.messages.stream(**body) as stream:
            assert await stream.get_final_text() == "Hello wörld"


def test_tool_use(claude, ask, add_model):
    model = add_model(pieces=["Let me see."], tool_call=("weather", ['{"city":', ' "Köln"}']))
    body = {"model": model.name, "tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    answer = strictly(ask(**body))
    text, call = answer.content
    assert text.text == "Let me see."
    assert (call.type, call.id, call.name, call.input) == ("tool_use", "call_1", "weather", {"city": "Köln"})
    assert answer.stop_reason == "tool_use"
    function = {"name": "weather", "parameters": TOOL["input_schema"], "description": "Tells the weather."}
    assert model.last.tools == ({"type": "function", "function": function},)
    assert (model.last.tool_choice, model.last.parallel_tool_calls) == ("auto", False)
    events = [strict_event(event) for event in ask(**body, stream=True)]
    in_order(events)
    pieces = [e.delta for e in events if e.type == "content_block_delta"]
    assert [d.partial_json for d in pieces if d.type == "input_json_delta"] == ['{"city":', ' "Köln"}']
    assert events[-2].delta.stop_reason == "tool_use"
    with claude.messages.stream(messages=MESSAGES, max_tokens=32, **body) as stream:
        assert stream.get_final_message().content[1].input == {"city": "Köln"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_tool_choice(ask, model, choice, expected):
    ask(tools=[TOOL], tool_choice=choice)
    assert model.last.tool_choice == expected
    assert model.last.parallel_tool_calls is None


def test_thinking(ask, add_model):
    model = add_model(reasoning="hmm")
    answer = strictly(ask(model=model.name))
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "hmm"
    events = [strict_event(event) for event in ask(model=model.name, stream=True)]
    in_order(events)
    assert [e.content_block.type for e in events if e.type == "content_block_start"] == ["thinking", "text"]
    thought = [e.delta.thinking for e in events if e.type == "content_block_delta" and e.delta.type == "thinking_delta"]
    assert thought == ["hmm"]


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [({"type": "enabled"}, True), ({"type": "adaptive"}, True), ({"type": "disabled"}, False)],
)
def test_whether_to_think_is_told_to_the_chat_template(ask, model, thinking, expected):
    ask(thinking=thinking, output_config={"effort": "low"})
    assert model.last.prompt.chat_template_kwargs == {"enable_thinking": expected, "reasoning_effort": "low"}


def test_a_json_format(ask, model):
    ask(output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}})
    assert model.last.output_format.kind == "json_schema"
    assert model.last.output_format.schema == {"type": "object"}


def test_stop_sequences(claude, ask, add_model):
    model = add_model(stopped_by="END")
    for stops, expected in ((["END", "X"], ("stop_sequence", "END")), (["X"], ("end_turn", None))):
        answer = strictly(ask(model=model.name, stop_sequences=stops))
        assert (answer.stop_reason, answer.stop_sequence) == expected
        assert model.last.sampling.stop == tuple(stops)
        delta = list(ask(model=model.name, stop_sequences=stops, stream=True))[-2].delta
        assert (delta.stop_reason, delta.stop_sequence) == expected


@pytest.mark.parametrize(
    ("finish", "max_tokens", "expected"),
    [
        ("length", 3, "max_tokens"),
        ("length", 32, "model_context_window_exceeded"),
        ("content_filter", 32, "refusal"),
    ],
)
def test_stop_reasons(ask, add_model, finish, max_tokens, expected):
    model = add_model(finish=finish)
    assert strictly(ask(model=model.name, max_tokens=max_tokens)).stop_reason == expected
    events = list(ask(model=model.name, max_tokens=max_tokens, stream=True))
    assert strict_event(events[-2]).delta.stop_reason == expected


def test_a_conversation_with_tools(ask, model):
    """Results become messages of their own, calls and thinking part of the assistant's turn."""
    ask(
        system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        tools=[TOOL],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I must look.", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Köln"}},
                    {"type": "tool_use", "id": "b", "name": "weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "rain"}]},
                    {"type": "tool_result", "tool_use_id": "b", "content": "no city", "is_error": True},
                    {"type": "text", "text": "Well?"},
                ],
            },
        ],
    )
    calls = [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}},
        {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ]
    assert model.last.prompt.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "I must look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no city"},
        {"role": "user", "content": "Well?"},
    ]


def test_turns_that_follow_each_other_become_one(ask, model):
    ask(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert model.last.prompt.messages == [{"role": "user", "content": parts}]


def test_an_assistants_last_turn_is_gone_on_with(ask, model):
    ask(messages=[*MESSAGES, {"role": "assistant", "content": "Hel"}])
    assert model.last.prompt.continue_final_message
    assert not model.last.prompt.add_generation_prompt


def test_the_beta_client_takes_the_answers_too(claude, model):
    answer = claude.beta.messages.create(model=model.name, max_tokens=9, messages=MESSAGES)
    assert answer.content[0].text == "Hello wörld"


def test_what_anthropic_accepts_is_accepted(ask):
    accepted = {
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "speed": "standard",
        "stop_sequences": [],
        "tools": [TOOL | {"type": "custom", "eager_input_streaming": True, "allowed_callers": ["direct"]}],
    }
    assert strictly(ask(**accepted)).content


@pytest.fixture(scope="module")
def sim():
    """Serve the simulated engine, which calls three tools at once, and yield a client."""
    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan():
        spec = trunnion.engine_spec("sim", "sim", {"tool_calls": 3})
        async with trunnion.open_pipeline(spec) as pipeline:
            directory.add(PipelineModel("sim", pipeline))
            yield

    with (
        RunningServer(create_app(directory, lifespan=lifespan)) as server,
        anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=20) as client,
    ):
        yield client


def test_several_calls_of_an_engine_and_their_results(sim):
    ask = {"model": "sim", "max_tokens": 200, "tools": [TOOL], "messages": MESSAGES}
    answer = strictly(sim.messages.create(**ask))
    assert [block.type for block in answer.content] == ["tool_use"] * 3
    in_order([strict_event(event) for event in sim.messages.create(**ask, stream=True)])
    with sim.messages.stream(**ask) as stream:
        assert stream.get_final_message().content == answer.content
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in answer.content]
    ask["messages"] = [*MESSAGES, answer.to_param(), {"role": "user", "content": results}]
    assert strictly(sim.messages.create(**ask)).content[0].type == "text"


def test_what_the_engine_cannot_do_is_refused_by_name(sim):
    image = {"type": "image", "source": {"type": "url", "url": "https://images.example/a.png"}}
    with pytest.raises(anthropic.BadRequestError, match=r"media\.image"):
        sim.messages.create(model="sim", max_tokens=9, messages=[{"role": "user", "content": [image]}])
    stopped = sim.messages.create(model="sim", max_tokens=50, messages=MESSAGES, stop_sequences=["e"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "e")
