"""The tool_calls and tool_choice stages."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trunnion.errors import InvalidArgument
from trunnion.events import ChoiceDelta, GenerateEvent, ToolCallDelta
from trunnion.formats import JsonObject, JsonSchema
from trunnion.plugin import NoConfig
from trunnion.requests import GenerateRequest, TextPrompt
from trunnion_stages.config import ToolCallsConfig
from trunnion_stages.tool_calls import ToolCallsStage
from trunnion_stages.tool_choice import ToolChoiceStage

from .conftest import context
from .events import calls_of, cut, finish_of, run, text_of

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "time"}},
)
WEATHER = {"type": "function", "function": {"name": "weather"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
CUTS = st.lists(st.integers(0, 300), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(max_size=6), JSON, max_size=3)
PIECES = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            '{"name": "weather", ',
            '"arguments": ',
            '{"city": "Rome"}',
            "}",
            "{",
            "[",
            "]",
        ),
        *("\n", " ", "plain", "<", '"', "\\", ",", CALL, '"x": 1', "tru", "1e", '{"arguments": {}, "name": "f"}'),
    ]
)


def opened(choice=None, *, config=None, tools=TOOLS, **request):
    asked = GenerateRequest(prompt=TextPrompt(text=""), tools=tools, tool_choice=choice, **request)
    return ToolCallsStage(context(None), ToolCallsConfig(**(config or {}))).open(asked)


def parse(text, choice=None, *, cuts=(), config=None, reason="stop", **request):
    deltas = run(opened(choice, config=config, **request), cut(text, cuts), reason=reason)
    return text_of(deltas), calls_of(deltas), finish_of(deltas)[0]


@pytest.mark.parametrize("cuts", [(), range(300)])
@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("Hello there", "Hello there", []),
        (" Hello\n", " Hello\n", []),
        (" \n", " \n", []),
        (CALL, "", [("weather", '{"city": "Rome"}')]),
        (f"\n\n{CALL}\n", "", [("weather", '{"city": "Rome"}')]),
        (f"Let me see. {CALL}", "Let me see. ", [("weather", '{"city": "Rome"}')]),
        (f"{CALL}\n{CALL}", "", [("weather", '{"city": "Rome"}')] * 2),
        (f"{CALL} Done. ", " Done. ", [("weather", '{"city": "Rome"}')]),
        ('<tool_call>{"name":"time","arguments":{}}</tool_call>', "", [("time", "{}")]),
        ('<tool_call>{"name":"time"}</tool_call>', "", [("time", "{}")]),
        ('<tool_call>{"name":"time","parameters":{"a":1}}</tool_call>', "", [("time", '{"a":1}')]),
        ('<tool_call>{"arguments":{"a":1},"name":"time"}</tool_call>', "", [("time", '{"a": 1}')]),
        ('<tool_call>{"name":"time","arguments":"{\\"a\\": 1}"}</tool_call>', "", [("time", '{"a": 1}')]),
        ('<tool_call>{"name":"time","arguments":{},"id":7}</tool_call>', "", [("time", "{}")]),
        (
            '<tool_call>{"name":"time","arguments":{"t":"</tool_call>}"}}</tool_call>x',
            "x",
            [("time", '{"t":"</tool_call>}"}')],
        ),
        # an end that is missing, or a brace
        ('<tool_call>{"name":"time","arguments":{}}', "", [("time", "{}")]),
        ('<tool_call>{"name":"time","arguments":{}}</tool', "", [("time", "{}")]),
        ('<tool_call>{"name":"time","arguments":{}</tool_call>', "", [("time", "{}")]),
        (
            f'<tool_call>{{"name":"time","arguments":{{}}}}\n{CALL}',
            "",
            [("time", "{}"), ("weather", '{"city": "Rome"}')],
        ),
        # no calls at all
        ("a <tool_cal", "a <tool_cal", []),
        ("<tool_call>", "<tool_call>", []),
        ("<tool_call>{oops}</tool_call>!", "<tool_call>{oops}</tool_call>!", []),
        ('<tool_call>{"name":"ti', '<tool_call>{"name":"ti', []),
        ('<tool_call>{"name":"","arguments":{}}</tool_call>', '<tool_call>{"name":"","arguments":{}}</tool_call>', []),
        (
            '<tool_call>{"name":"t","arguments":[1]}</tool_call>',
            '<tool_call>{"name":"t","arguments":[1]}</tool_call>',
            [],
        ),
        # broken within the arguments: what went out stays, the rest is text
        ('<tool_call>{"name":"t","arguments":{"a": oops}}</tool_call>', "oops}}</tool_call>", [("t", '{"a": ')]),
        ('<tool_call>{"name":"t","arguments":{"a": "Ro', "", [("t", '{"a": "Ro')]),
        # what models write into strings
        ('<tool_call>{"name":"t","arguments":{"a": "x\ny"}}</tool_call>', "", [("t", '{"a": "x\\ny"}')]),
    ],
)
def test_hermes(text, said, calls, cuts):
    assert parse(text, cuts=cuts) == (said, calls, "tool_calls" if calls else "stop")


@given(
    name=st.text(min_size=1, max_size=8),
    arguments=ARGUMENTS,
    ascii_=st.booleans(),
    indent=st.none() | st.integers(0, 2),
    cuts=CUTS,
)
def test_any_arguments_come_through(name, arguments, ascii_, indent, cuts):
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=ascii_, indent=indent)
    said, calls, reason = parse(f"Well.<tool_call>{body}</tool_call>", cuts=cuts)
    assert (said, len(calls), reason) == ("Well.", 1, "tool_calls")
    assert calls[0][0] == name
    assert json.loads(calls[0][1]) == arguments
    assert parse(f"[{body}, {body}]", "required", cuts=cuts)[1] == calls * 2
    assert parse(json.dumps(arguments), WEATHER, cuts=cuts)[:2] == ("", [("weather", json.dumps(arguments))])


@given(text=st.lists(PIECES, max_size=14).map("".join), cuts=CUTS, choice=st.sampled_from([None, "required", WEATHER]))
@example(text='{"name": "weather", "arguments": {"city": "Rome"}} x y', cuts=list(range(60)), choice="required")
def test_events_may_be_cut_anywhere_and_nothing_is_lost(text, cuts, choice):
    whole = parse(text, choice)
    assert parse(text, choice, cuts=cuts) == whole
    assert parse(text, choice, cuts=range(300)) == whole
    if not whole[1]:
        assert whole[0] == text


def test_arguments_stream():
    deltas = run(
        opened(), ['<tool_call>{"name": "weather", "arguments"', ': {"ci', 'ty": "Ro', 'me"}', "}</tool_call>"]
    )
    assert [piece.arguments for delta in deltas for piece in delta.tool_calls] == ['{"ci', 'ty": "Ro', 'me"}']
    assert [bool(delta.tool_calls) for delta in deltas] == [False, True, True, True, False]


def test_length_stays_length():
    assert parse(CALL, reason="length")[2] == "length"


@pytest.mark.parametrize("choice", [None, "auto"])
def test_parallel_calls_off_lets_the_first_through(choice):
    assert len(parse(CALL * 2, choice, parallel_tool_calls=False)[1]) == 1
    assert len(parse(CALL * 2, choice, parallel_tool_calls=True)[1]) == 2


@pytest.mark.parametrize("cuts", [(), range(300)])
@pytest.mark.parametrize(
    ("choice", "text", "said", "calls"),
    [
        ("required", '[{"name": "time", "arguments": {}}]', "", [("time", "{}")]),
        (
            "required",
            ' [ {"name":"time","arguments":{}} , {"name":"f","arguments":{"a":[1]}} ]\n',
            "",
            [("time", "{}"), ("f", '{"a":[1]}')],
        ),
        ("required", '{"name": "time", "arguments": {}}', "", [("time", "{}")]),
        ("required", '{"arguments": {}, "name": "time", "x": 1}', "", [("time", "{}")]),
        ("required", '[{"answer": 42}]', '[{"answer": 42}]', []),
        ("required", "[1]", "[1]", []),
        ("required", "[", "[", []),
        ("required", "", "", []),
        ("required", "No.", "No.", []),
        ("required", CALL, "", [("weather", '{"city": "Rome"}')]),
        (WEATHER, '{"city": "Rome"}', "", [("weather", '{"city": "Rome"}')]),
        (WEATHER, ' {"city": "Rome"} \n', "", [("weather", '{"city": "Rome"}')]),
        (WEATHER, "Rome", "Rome", []),
        (WEATHER, CALL, "", [("weather", '{"city": "Rome"}')]),
    ],
)
def test_forced_calls(choice, text, said, calls, cuts):
    assert parse(text, choice, cuts=cuts) == (said, calls, "tool_calls" if calls else "stop")


def test_json_format_of_a_free_choice():
    text = '{"name": "weather", "parameters": {"city": "Rome"}}'
    config = {"format": "json"}
    assert parse(text, config=config)[:2] == ("", [("weather", '{"city": "Rome"}')])
    assert parse(text) == (text, [], "stop")
    assert parse("It rains.", config=config) == ("It rains.", [], "stop")


def test_tags_are_configurable():
    config = {"start": "[TOOL]", "end": "[/TOOL]"}
    assert parse('[TOOL]{"name":"time","arguments":{}}[/TOOL]', config=config)[1] == [("time", "{}")]


def test_choices_are_independent():
    tools = opened()
    for a, b in zip(cut(CALL, [5, 30, 40]), cut("no call < here", [4, 8, 11]), strict=True):
        deltas = (ChoiceDelta(index=0, text=a), ChoiceDelta(index=1, text=b))
        for event in tools.feed(GenerateEvent(choices=deltas)):
            for choice in event.choices:
                assert bool(choice.tool_calls) <= (choice.index == 0)
    ends = tuple(ChoiceDelta(index=index, finish_reason="stop") for index in (0, 1))
    (event,) = tools.feed(GenerateEvent(choices=ends))
    assert [choice.finish_reason for choice in event.choices] == ["tool_calls", "stop"]


def test_plain_events_and_an_engine_that_parses_itself_pass():
    tools = opened()
    call = ToolCallDelta(index=0, id="x", name="time", arguments="{}")
    for delta in (ChoiceDelta(text="plain"), ChoiceDelta(token_ids=(1,)), ChoiceDelta(tool_calls=(call,))):
        event = GenerateEvent(choices=(delta,))
        assert tools.feed(event)[0] is event


def test_finish_gives_back_what_was_held():
    tools = opened()
    tools.feed(GenerateEvent(choices=(ChoiceDelta(text="x<tool"),)))
    assert tools.finish() == (GenerateEvent(choices=(ChoiceDelta(text="<tool"),)),)
    assert tools.finish() == ()


def test_nothing_to_do_without_tools():
    assert opened(tools=()) is None
    assert opened("none") is None


def format_of(choice, *, tools=TOOLS, **request):
    asked = GenerateRequest(prompt=TextPrompt(text=""), tools=tools, tool_choice=choice, **request)
    (result,) = ToolChoiceStage(context(None), NoConfig()).process([asked])
    if isinstance(result, Exception):
        raise result
    assert result.tool_choice == choice
    return result.output_format


def test_named_choice_demands_the_parameters():
    assert format_of(WEATHER) == JsonSchema(schema=CITY, name="weather")
    assert format_of({"type": "function", "name": "time"}).schema == {"type": "object", "properties": {}}


def test_required_demands_an_array_of_calls():
    schema = format_of("required").schema
    names = [call["properties"]["name"]["enum"] for call in schema["items"]["anyOf"]]
    assert names == [["weather"], ["time"]]
    assert schema["items"]["anyOf"][0]["properties"]["arguments"] == CITY
    assert "maxItems" not in schema
    assert format_of("required", parallel_tool_calls=False).schema["maxItems"] == 1


def test_definitions_move_to_the_top():
    parameters = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}}
    schema = format_of(
        "required", tools=({"type": "function", "function": {"name": "f", "parameters": parameters}},)
    ).schema
    assert schema["$defs"] == {"A": {"type": "string"}}
    assert "$defs" not in schema["items"]["properties"]["arguments"]
    assert "$defs" in parameters


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_free_choice_demands_nothing(choice):
    assert format_of(choice) is None
    assert format_of(choice, tools=()) is None


@pytest.mark.parametrize(
    ("choice", "request_"),
    [
        ({"type": "function", "function": {"name": "nothing"}}, {}),
        ("always", {}),
        ({"type": "function"}, {}),
        ("required", {"tools": ()}),
        ("required", {"output_format": JsonObject()}),
    ],
)
def test_bad_choices_are_refused(choice, request_):
    with pytest.raises(InvalidArgument) as caught:
        format_of(choice, **request_)
    assert caught.value.param == "tool_choice"
    if "output_format" not in request_:
        with pytest.raises(InvalidArgument):
            opened(choice, **request_)
