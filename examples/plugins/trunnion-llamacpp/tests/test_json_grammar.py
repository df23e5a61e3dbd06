"""Hold that whatever the model says under a schema's grammar satisfies the schema."""

from __future__ import annotations

import json

import jsonschema
import pytest
from trunnion import (
    Choice,
    GenerateRequest,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    SamplingParams,
    SyncPipeline,
    as_prompt,
    engine_spec,
)
from trunnion.errors import InvalidArgument, UnsupportedFeature

from trunnion_llamacpp.json_grammar import SchemaGrammar, literal

SHORT = {"type": "string", "maxLength": 6}
SCHEMAS = [
    {"type": "object", "properties": {"a": SHORT, "b": {"type": "integer"}}, "required": ["a"]},
    {"type": "object", "properties": {"a": SHORT, "b": SHORT, "c": {"type": "boolean"}}, "required": ["b"]},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
    {"type": "object", "properties": {"x": SHORT}, "required": ["x", "y"], "additionalProperties": {"type": "boolean"}},
    {"type": "object", "additionalProperties": False},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    {"type": "array", "prefixItems": [{"type": "integer"}, SHORT], "minItems": 2, "items": False},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "number"},
    {"type": ["integer", "null"]},
    {"enum": ['say "hi"', "back\\slash", "line\nbreak", 3, None, {"k": [1]}]},
    {"const": "ä\u2028\u0001"},
    {"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"k": {"const": 1}}, "required": ["k"]}]},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
     "node": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}, "required": ["left"]}}},
    {"type": "object", "properties": {'a b"c': {"type": "boolean"}}, "required": ['a b"c'], "title": "annotated"},
]  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(models):
    with SyncPipeline(engine_spec("llamacpp", models.alone, {})) as pipeline:
        yield pipeline


def ask(pipeline: SyncPipeline, **fields):
    sampling = {"max_tokens": 300, **fields.pop("sampling", {})}
    prompt = as_prompt("Give me a person as JSON with keys name and age.")
    return pipeline.complete([GenerateRequest(prompt=prompt, sampling=SamplingParams(**sampling), **fields)])[0]


@pytest.mark.parametrize("schema", SCHEMAS, ids=[str(number) for number in range(len(SCHEMAS))])
def test_drawn_answers_satisfy_the_schema(pipeline: SyncPipeline, schema) -> None:
    ended = 0
    for seed in range(6):
        sampling = {"temperature": 2.0, "seed": seed}
        choice = ask(pipeline, output_format=JsonSchema(schema=schema), sampling=sampling).choices[0]
        if choice.finish_reason == "stop":  # a tree may grow past any length
            ended += 1
            checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
            checker.validate(json.loads(choice.text))
    assert ended


def test_drawn_objects_are_objects(pipeline: SyncPipeline) -> None:
    ended = 0
    for seed in range(12):
        answer = ask(pipeline, output_format=JsonObject(), sampling={"temperature": 1.5, "seed": seed})
        if answer.choices[0].finish_reason == "stop":
            ended += 1
            assert isinstance(json.loads(answer.text), dict)
    assert ended


def test_the_models_own_json_passes_unchanged(pipeline: SyncPipeline) -> None:
    free = ask(pipeline, sampling={"temperature": 0})
    bound = ask(pipeline, output_format=JsonObject(), sampling={"temperature": 0})
    assert json.loads(free.text)
    assert bound.text == free.text


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"type": "integer", "minimum": 3}, "minimum"),
        ({"type": "string", "pattern": "^a+$"}, "pattern"),
        ({"type": "string", "format": "email"}, "format"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "patternProperties"),
        ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, "allOf"),
        ({"anyOf": [{"type": "string"}], "maxLength": 3}, "maxLength"),
        ({"$ref": "https://example.org/schema"}, "$ref"),
    ],
)
def test_what_a_grammar_cannot_hold_to_is_refused_by_name(schema, param: str) -> None:
    with pytest.raises(UnsupportedFeature) as refused:
        SchemaGrammar(schema)
    assert refused.value.param == f"output_format.json_schema.{param}"


DEEP: dict = {"type": "array", "items": {}}
for _ in range(3000):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "thing"},
        {"properties": {"a": 3}},
        {"$ref": "#/$defs/none"},
        {"enum": []},
        {"enum": 3},
        {"type": "object", "required": 5},
        {"type": "object", "properties": [1]},
        {"type": "string", "minLength": 5, "maxLength": 2},
        {"anyOf": 1},
        DEEP,
    ],
    ids=range(10),
)
def test_what_is_no_schema_is_refused(schema) -> None:
    with pytest.raises(InvalidArgument):
        SchemaGrammar(schema)


@pytest.mark.parametrize("text", ["plain", 'a"b', "back\\slash", "tab\tline\nreturn\r", "\x01\x1f", "日本 ü"])
def test_a_literal_is_said_as_it_is(pipeline: SyncPipeline, text: str) -> None:
    grammar = Grammar(grammar=f"root ::= {literal(text)}")
    assert ask(pipeline, output_format=grammar).text == text
    assert ask(pipeline, output_format=Choice(choices=(text,))).text == text


@pytest.mark.parametrize(
    "grammar",
    ["", "root ::= nothing", "root ::= root", 'start ::= "a"', "root ::= [a", 'root ::= "a', "\0", "root ::= ((((((("],
)
def test_a_grammar_that_is_none_is_refused(pipeline: SyncPipeline, grammar: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        ask(pipeline, output_format=Grammar(grammar=grammar))
    assert refused.value.param == "output_format"
    assert ask(pipeline, sampling={"max_tokens": 2}).text  # and harms nobody


def test_a_choice_of_nothing_is_refused(pipeline: SyncPipeline) -> None:
    with pytest.raises(InvalidArgument):
        ask(pipeline, output_format=Choice(choices=()))


def test_an_expression_is_refused_by_name(pipeline: SyncPipeline) -> None:
    with pytest.raises(UnsupportedFeature) as refused:
        ask(pipeline, output_format=Regex(pattern="a+"))
    assert refused.value.param == "output_format.regex"


def test_a_grammar_ends_even_where_ends_are_ignored(pipeline: SyncPipeline) -> None:
    fields = {"sampling": {"ignore_eos": True, "max_tokens": 20, "temperature": 0}}
    choice = ask(pipeline, output_format=Grammar(grammar='root ::= "abc"'), **fields).choices[0]
    assert (choice.text, choice.finish_reason) == ("abc", "stop")


def test_a_minimum_that_the_grammar_does_not_allow_ends_with_it(pipeline: SyncPipeline) -> None:
    fields = {"sampling": {"min_tokens": 15, "max_tokens": 20, "temperature": 0}}
    choice = ask(pipeline, output_format=Grammar(grammar='root ::= "abc"'), **fields).choices[0]
    assert (choice.text, choice.finish_reason) == ("abc", "stop")
