"""The Responses API with the real client of OpenAI: answers and events are what its own types allow, and no more."""

import contextlib

import openai
import pydantic
import pytest
from http_fakes import RunningServer
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from strict_types import every

import trunnion
from trunnion import errors
from trunnion_http import ModelDirectory, PipelineModel, create_app

TOOL = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
EVENT = TypeAdapter(ResponseStreamEvent)


def strictly(model):
    """Fail on any field, however deep, that OpenAI's own type does not have."""
    assert list(every(model))
    return model


def strict_response(response):
    Response.model_validate(response.to_dict(), strict=True)
    return strictly(response)


def strict_events(stream):
    """Return the events, having held each to its type, and all to the order they must have."""
    events = []
    for number, event in enumerate(stream):
        EVENT.validate_python(event.to_dict(), strict=True)
        assert strictly(event).sequence_number == number
        events.append(event)
    types = [event.type for event in events]
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[-1] in ("response.completed", "response.incomplete", "response.failed")
    open_item, count = None, 0
    for event in events[2:-1]:
        assert event.output_index == count
        if event.type == "response.output_item.added":
            assert open_item is None
            open_item = event.item.id
        elif event.type == "response.output_item.done":
            assert open_item == event.item.id
            open_item, count = None, count + 1
        else:
            assert event.item_id == open_item
    return events


def without_times(response):
    return {key: value for key, value in response.to_dict().items() if key not in ("id", "created_at", "completed_at")}


def without_ids(output):
    return [{key: value for key, value in item.to_dict().items() if key != "id"} for item in output]


@pytest.fixture
def ask(client, model):
    def create(**body):
        return client.responses.create(**{"model": model.name, "input": "Grüß dich 👋", **body})

    return create


def test_a_response(ask, model):
    answer = strict_response(
        ask(instructions="Be kind.", temperature=0.5, top_p=0.9, max_output_tokens=32, metadata={"a": "b"}, user="u")
    )
    assert answer.id.startswith("resp_")
    assert (answer.status, answer.model, answer.error) == ("completed", model.name, None)
    assert answer.output_text == "Hello wörld"
    assert [(item.type, item.status) for item in answer.output] == [("message", "completed")]
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (7, 3, 10)
    assert usage.input_tokens_details.cached_tokens == 4
    assert (answer.instructions, answer.temperature, answer.top_p) == ("Be kind.", 0.5, 0.9)
    assert (answer.max_output_tokens, answer.metadata, answer.user) == (32, {"a": "b"}, "u")
    last = model.last
    assert last.delivery == "final"
    assert last.prompt.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Grüß dich 👋"},
    ]
    assert (last.sampling.max_tokens, last.sampling.temperature, last.sampling.top_p) == (32, 0.5, 0.9)
    assert model.slots == 0


def test_a_stream(ask, model):
    whole = ask()
    events = strict_events(ask(stream=True))
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.delta for event in events if event.type.endswith("text.delta")] == ["Hel", "lo", " wörld"]
    final = strict_response(events[-1].response)
    assert without_times(final) | {"output": []} == without_times(whole) | {"output": []}
    assert without_ids(final.output) == without_ids(whole.output)
    assert events[0].response.status == "in_progress"
    assert events[0].response.id == final.id
    assert model.last.delivery == "delta"


def test_the_streaming_helper(client, model):
    with client.responses.stream(model=model.name, input="Hi") as stream:
        assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == "Hello wörld"
        assert stream.get_final_response().output_text == "Hello wörld"


async def test_async(running, model):
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        assert strictly(await client.responses.create(model=model.name, input="Hi")).output_text == "Hello wörld"
        async with client.responses.stream(model=model.name, input="Hi") as stream:
            assert (await stream.get_final_response()).output_text == "Hello wörld"


def test_function_calls(client, ask, add_model):
    model = add_model(pieces=["Let me see."], tool_call=("weather", ['{"city":', ' "Köln"}']))
    body = {"model": model.name, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}
    answer = strict_response(ask(**body))
    text, call = answer.output
    assert text.content[0].text == "Let me see."
    assert (call.type, call.call_id, call.name) == ("function_call", "call_1", "weather")
    assert call.arguments == '{"city": "Köln"}'
    assert (answer.parallel_tool_calls, answer.tool_choice) == (False, "auto")
    assert answer.tools[0].to_dict() == TOOL
    function = {key: value for key, value in TOOL.items() if key != "type"}
    assert model.last.tools == ({"type": "function", "function": function},)
    assert model.last.parallel_tool_calls is False
    events = strict_events(ask(**body, stream=True))
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert pieces == ['{"city":', ' "Köln"}']
    done = next(e for e in events if e.type == "response.function_call_arguments.done")
    assert done.arguments == call.arguments
    assert without_ids(events[-1].response.output) == without_ids(answer.output)
    with client.responses.stream(model=model.name, input="Hi", tools=[TOOL]) as stream:
        assert stream.get_final_response().output[1].arguments == call.arguments


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("none", "none"),
        ({"type": "function", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_tool_choice(ask, model, choice, expected):
    strict_response(ask(tools=[TOOL], tool_choice=choice))
    assert model.last.tool_choice == expected


def test_reasoning(ask, add_model):
    model = add_model(reasoning="hmm")
    answer = strict_response(ask(model=model.name, reasoning={"effort": "low"}))
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].content[0].text == "hmm"
    assert answer.reasoning.effort == "low"
    assert model.last.prompt.chat_template_kwargs == {"reasoning_effort": "low"}
    events = strict_events(ask(model=model.name, stream=True))
    assert [e.delta for e in events if e.type == "response.reasoning_text.delta"] == ["hmm"]
    assert without_ids(events[-1].response.output) == without_ids(answer.output)


def test_log_probabilities(ask, model):
    body = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    answer = strict_response(ask(**body))
    told = answer.output[0].content[0].logprobs
    assert [token.token for token in told] == ["Hel", "lo", " wörld"]
    assert [top.logprob for top in told[0].top_logprobs] == [-9999.0, -1.0]
    assert model.last.sampling.logprobs == 2
    events = strict_events(ask(**body, stream=True))
    assert [e.logprobs[0].token for e in events if e.type.endswith("text.delta")] == ["Hel", "lo", " wörld"]
    assert without_ids(events[-1].response.output) == without_ids(answer.output)
    ask(include=["message.output_text.logprobs"])
    assert model.last.sampling.logprobs == 0


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_incomplete(ask, add_model, finish, reason):
    model = add_model(finish=finish)
    answer = strict_response(ask(model=model.name))
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", reason)
    assert answer.output[0].status == "incomplete"
    last = strict_events(ask(model=model.name, stream=True))[-1]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", reason)
    assert without_ids(last.response.output) == without_ids(answer.output)


def test_an_answer_of_nothing(ask, add_model):
    model = add_model(pieces=[])
    answer = strict_response(ask(model=model.name))
    assert answer.output[0].content[0].text == ""
    assert without_ids(strict_events(ask(model=model.name, stream=True))[-1].response.output) == without_ids(
        answer.output
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.EngineDead("the engine is gone"), "server_error"),
        (errors.Overloaded("too much"), "rate_limit_exceeded"),
        (errors.InvalidArgument("no"), "invalid_prompt"),
        (ValueError("secret"), "server_error"),
    ],
)
def test_a_failure_in_mid_stream(ask, add_model, error, code):
    model = add_model(die_after=(2, error))
    events = list(ask(model=model.name, stream=True))
    last = events[-1]
    EVENT.validate_python(last.to_dict(), strict=True)
    assert (last.type, last.response.status, last.response.error.code) == ("response.failed", "failed", code)
    assert last.sequence_number == len(events) - 1
    assert "secret" not in last.response.error.message
    with pytest.raises(openai.APIStatusError):
        ask(model=model.name)
    assert model.slots == 0


def test_a_json_schema(ask, model):
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "name": "r", "schema": schema, "strict": True}
    assert strict_response(ask(text={"format": wanted})).text.format.name == "r"
    assert model.last.output_format == trunnion.JsonSchema(schema=schema, name="r")
    ask(text={"format": {"type": "json_object"}})
    assert model.last.output_format == trunnion.JsonObject()
    ask(text={"format": {"type": "text"}, "verbosity": "medium"})
    assert model.last.output_format is None


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
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        yield client


class Trip(pydantic.BaseModel):
    city: str
    days: int


def test_parsing(sim):
    answer = sim.responses.parse(model="sim", input="Plan a trip.", text_format=Trip)
    assert isinstance(answer.output_parsed, Trip)
    with sim.responses.stream(model="sim", input="Plan a trip.", text_format=Trip) as stream:
        assert stream.get_final_response().output_parsed == answer.output_parsed


def test_several_calls_and_their_results(sim):
    """What came out goes in again, as OpenAI's own loop does."""
    ask = {"model": "sim", "tools": [TOOL], "max_output_tokens": 200}
    first = strict_response(sim.responses.create(input="Weather?", **ask))
    assert [item.type for item in first.output] == ["function_call"] * 3
    streamed = strict_events(sim.responses.create(input="Weather?", **ask, stream=True))[-1].response
    assert without_ids(streamed.output) == without_ids(first.output)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in first.output]
    again = [{"role": "user", "content": "Weather?"}, *first.output, *results]
    assert strict_response(sim.responses.create(input=again, **ask)).output[0].type == "message"


def test_what_the_engine_cannot_do_is_refused_by_name(sim):
    content = [{"type": "input_image", "image_url": "https://images.example/a.png", "detail": "auto"}]
    with pytest.raises(openai.BadRequestError) as caught:
        sim.responses.create(model="sim", input=[{"role": "user", "content": content}])
    assert (caught.value.code, caught.value.param) == ("unsupported_feature", "media.image")
