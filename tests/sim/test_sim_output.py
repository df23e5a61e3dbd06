"""What is said: scripts, tool calls, JSON by schema, choices, patterns, log probabilities, embeddings."""

import json
import math
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_lab import ask, run, sim, text_of

import trunnion as t
from trunnion.errors import ContextOverflow, EngineDead, InvalidArgument, Overloaded, Transient, UnsupportedFeature
from trunnion_sim.distribution import RATIO, rank_table
from trunnion_sim.embedding import embed
from trunnion_sim.json_value import json_value
from trunnion_sim.tokens import pieces

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def calling(*, messages=({"role": "user", "content": "what now"},), max_tokens=100, **fields):
    return ask(prompt=t.MessagesPrompt(messages=messages), tools=(WEATHER, CLOCK), max_tokens=max_tokens, **fields)


# --- scripts


async def test_output_script_in_turn():
    async with sim(output="script", script=("first answer", "second")) as engine:
        answers = [await run(engine, ask(max_tokens=None)) for _ in range(3)]
    assert [answer.text for answer in answers] == ["first answer", "second", "first answer"]
    assert answers[0].choices[0].finish_reason == "stop"
    assert answers[0].usage.completion_tokens == 2


async def test_output_script_by_what_the_prompt_contains():
    async with sim(output="script", script={"fox": "a fox", "brown fox": "a brown one"}) as engine:
        assert (await run(engine)).text == "a brown one"
        with pytest.raises(InvalidArgument, match="no answer"):
            await run(engine, ask("a hare"))
    assert await text_of(ask("a hare"), output="script", script={"": "whatever"}) == "whatever"


async def test_a_script_may_call_tools():
    answer = {"text": "let me see", "tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}
    async with sim(output="script", script=(answer,)) as engine:
        [choice] = (await run(engine, calling())).choices
        assert (choice.text, choice.finish_reason) == ("let me see", "tool_calls")
        assert [(call.name, json.loads(call.arguments)) for call in choice.tool_calls] == [
            ("weather", {"city": "Rome"})
        ]
        written = (await run(engine, ask(max_tokens=None))).text  # without tools it is written out
        assert '<tool_call>\n{"name": "weather"' in written


async def test_a_script_is_cut_off_and_goes_on_when_told_to():
    config = {"output": "script", "script": ("one two three",)}
    async with sim(**config) as engine:
        cut = await run(engine, ask(max_tokens=2))
        assert (cut.text, cut.choices[0].finish_reason) == ("one two", "length")
        longer = await run(engine, ask(max_tokens=9, sampling={"ignore_eos": True}))
        assert longer.usage.completion_tokens == 9


@pytest.mark.parametrize("config", [{"output": "script"}, {"script": ("x",)}])
def test_script_and_its_output_go_together(config):
    with pytest.raises(t.errors.ConfigError, match="go together"):
        t.engine_spec("sim", None, config)


# --- tool calls


async def test_tools_are_called_as_their_schema_demands():
    async with sim() as engine:
        events = [event async for event in engine.generate(calling())]
        made = t.Completion()
        for event in events:
            made.add(event)
    [choice] = made.choices
    assert (choice.text, choice.finish_reason) == ("", "tool_calls")
    [call] = choice.tool_calls
    assert call.id.startswith("call_")
    function = {"weather": WEATHER, "clock": CLOCK}[call.name]["function"]
    jsonschema.validate(json.loads(call.arguments), function.get("parameters", {"maxProperties": 0}))
    pieces_of = [delta for event in events for one in event.choices for delta in one.tool_calls]
    assert (pieces_of[0].name, pieces_of[0].arguments) == (call.name, "")
    assert all(piece.name is None for piece in pieces_of[1:])
    assert made.usage.completion_tokens == len(events) == len(pieces_of)


async def test_tool_calls_are_as_many_as_wanted_unless_parallel_ones_are_forbidden():
    async with sim(tool_calls=3) as engine:
        calls = (await run(engine, calling())).choices[0].tool_calls
        assert len({call.id for call in calls}) == 3
        assert len((await run(engine, calling(parallel_tool_calls=False))).choices[0].tool_calls) == 1


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", None),
        ("required", {"weather", "clock"}),
        ({"type": "function", "function": {"name": "clock"}}, {"clock"}),
    ],
)
async def test_tool_choice(choice, names):
    async with sim() as engine:
        [answer] = (await run(engine, calling(tool_choice=choice))).choices
        if names is None:
            assert answer.text
            assert not answer.tool_calls
        else:
            assert answer.tool_calls[0].name in names


async def test_a_tool_s_result_is_answered_in_words():
    messages = ({"role": "user", "content": "x"}, {"role": "tool", "content": "12", "tool_call_id": "1"})
    async with sim() as engine:
        assert not (await run(engine, calling(messages=messages))).choices[0].tool_calls
        assert (await run(engine, calling(messages=messages, tool_choice="required"))).choices[0].tool_calls


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": {"type": "function", "function": {"name": "nobody"}}},
        {"tool_choice": "sometimes"},
        {"tool_choice": "required", "output_format": t.JsonObject()},
        {"tool_choice": "required", "tools": ()},
    ],
)
async def test_a_wrong_tool_choice_is_refused(fields):
    async with sim() as engine:
        with pytest.raises(InvalidArgument) as caught:
            await run(engine, calling().with_(**fields))
        assert caught.value.param == "tool_choice"


# --- formats

NODE = {
    "$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"anyOf": [
        {"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"]}},
    "$ref": "#/$defs/node",
}  # fmt: skip
SCHEMAS = {
    "empty": {},
    "object": WEATHER["function"]["parameters"],
    "closed": {"type": "object", "properties": {"a": {"const": 3}}, "additionalProperties": False, "required": ["a"]},
    "free keys": {"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 2},
    "required beyond": {"type": "object", "required": ["x"]},
    "few": {"properties": {n: {"type": "null"} for n in "abc"}, "maxProperties": 2, "required": ["c"]},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    "unique": {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
    "range": {"type": "integer", "minimum": 7, "maximum": 9},
    "narrow": {"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.3},
    "below": {"type": "number", "maximum": -5},
    "multiple": {"type": "integer", "multipleOf": 7, "exclusiveMinimum": 7, "maximum": 22},
    "long": {"type": "string", "minLength": 40},
    "short": {"type": "string", "minLength": 2, "maxLength": 3},
    "none": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": r"^[A-Z]{2}\d{3,}-(x|y)?$"},
    "date": {"type": "string", "format": "date"},
    "nullable": {"type": ["string", "null"]},
    "all": {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                      {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]},
    "one": {"oneOf": [{"type": "object", "properties": {"kind": {"const": k}}, "required": ["kind"]} for k in "ab"]},
    "any": {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "array", "items": {"type": "string"}}]},
    "enum and type": {"type": "string", "enum": [1, "a", None]},
    "recursive": NODE,
    "nested": {"type": "array", "items": {"type": "array", "items": {"$ref": "#/items"}, "maxItems": 2}, "maxItems": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_satisfies_its_schema(name):
    schema = SCHEMAS[name]
    made = [json_value(schema, str(seed)) for seed in range(20)]
    for value in made:
        jsonschema.validate(json.loads(json.dumps(value)), schema, cls=jsonschema.Draft202012Validator)
    assert made[3] == json_value(schema, "3")


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ({"not": {"type": "string"}}, UnsupportedFeature),
        ({"type": "object", "properties": {"a": {"if": {}}}, "required": ["a"]}, UnsupportedFeature),
        ({"type": "string", "pattern": "(?=a)b"}, UnsupportedFeature),
        ({"type": "string", "format": "idn-email"}, UnsupportedFeature),
        ({"type": "integer", "minimum": 3, "maximum": 2}, UnsupportedFeature),
        ({"type": "string", "pattern": "^aaaa$", "maxLength": 2}, UnsupportedFeature),
        ({"$ref": "https://example.com/schema"}, UnsupportedFeature),
        ({"$ref": "#/nowhere"}, InvalidArgument),
        ({"$ref": "#"}, InvalidArgument),
        ({"type": "colour"}, InvalidArgument),
        ({"type": "object", "properties": 3}, InvalidArgument),
    ],
)
async def test_what_cannot_be_satisfied_is_refused(schema, error):
    async with sim() as engine:
        with pytest.raises(error) as caught:
            await run(engine, ask(output_format=t.JsonSchema(schema=schema)))
        assert type(caught.value) is error
        assert caught.value.param == "output_format.json_schema"


@pytest.mark.parametrize(
    ("wanted", "check"),
    [
        (t.JsonObject(), lambda text: isinstance(json.loads(text), dict)),
        (t.JsonSchema(schema=NODE), lambda text: jsonschema.validate(json.loads(text), NODE) is None),
        (t.Choice(choices=("yes indeed", "no")), lambda text: text in ("yes indeed", "no")),
        (t.Regex(pattern=r"[A-C]{3}-\d{2}( ok)*"), lambda text: re.fullmatch(r"[A-C]{3}-\d{2}( ok)*", text)),
    ],
)
async def test_formats(wanted, check):
    async with sim(eos_after=1, adapters=("a",)) as engine:
        for adapter in (None, "a"):
            made = await run(engine, ask(output_format=wanted, max_tokens=400, adapter=adapter))
            assert check(made.text)
            assert made.choices[0].finish_reason == "stop"


async def test_a_format_and_a_forced_length():
    async with sim() as engine:
        padded = await run(engine, ask(output_format=t.JsonObject(), max_tokens=80, sampling={"ignore_eos": True}))
        assert padded.usage.completion_tokens == 80
        json.loads(padded.text)
        with pytest.raises(InvalidArgument, match="ignore_eos"):
            await run(engine, ask(output_format=t.Choice(choices=("a",)), sampling={"ignore_eos": True}))
        cut = await run(engine, ask(output_format=t.JsonObject(), max_tokens=2))
        assert cut.choices[0].finish_reason == "length"


async def test_a_grammar_is_refused():
    async with sim() as engine:
        with pytest.raises(UnsupportedFeature):
            await run(engine, ask(output_format=t.Grammar(grammar="root ::= 'a'")))


@given(st.text())
def test_pieces_joined_give_the_text_again(text):
    assert "".join(pieces(text)) == text


# --- sampling


async def test_log_probabilities_are_those_of_the_tokens():
    async with sim() as engine:
        answer = await run(engine, ask(max_tokens=40, sampling={"logprobs": 3, "seed": 1}))
        greedy = await run(engine, ask(max_tokens=40, sampling={"temperature": 0}))
    [choice] = answer.choices
    assert "".join(entry.token for entry in choice.logprobs) == choice.text
    assert [entry.token_id for entry in choice.logprobs] == list(choice.token_ids)
    for entry, best in zip(choice.logprobs, greedy.choices[0].token_ids, strict=True):
        assert entry.top[0].token_id == best
        assert [one.logprob for one in entry.top] == sorted((one.logprob for one in entry.top), reverse=True)
        same = [one.logprob for one in entry.top if one.token_id == entry.token_id]
        assert all(logprob == entry.logprob for logprob in same)
    spread = [math.exp(entry.top[0].logprob) for entry in choice.logprobs]
    assert spread == pytest.approx([(1 - RATIO) / (1 - RATIO**24)] * 40)


@pytest.mark.parametrize("config", [{"output": "echo"}, {"output": "script", "script": ("so it goes",)}])
async def test_log_probabilities_of_what_had_to_come(config):
    async with sim(**config) as engine:
        [choice] = (await run(engine, ask(sampling={"logprobs": 2}))).choices
    assert len(choice.logprobs) == len(choice.token_ids)
    for entry in choice.logprobs:
        assert entry.top[0].logprob == entry.logprob
        assert sum(math.exp(one.logprob) for one in entry.top) <= 1


def test_ranks_are_drawn_as_the_parameters_say():
    assert set(rank_table(24, 0, None, None, None)) == {0}
    assert set(rank_table(24, None, None, 3, None)) == {0, 1, 2}
    assert set(rank_table(24, None, 0.3, None, None)) == {0, 1}  # 0.2 + 0.16
    assert set(rank_table(24, None, None, None, 0.6)) == {0, 1, 2}  # 1, 0.8, 0.64
    plain, hot = rank_table(24, None, None, None, None), rank_table(24, 5.0, None, None, None)
    assert plain.count(0) / 256 == pytest.approx((1 - RATIO) / (1 - RATIO**24), abs=0.01)
    assert hot.count(0) < plain.count(0)
    assert max(hot) == 23


async def test_stop_tokens_end_the_answer_and_are_not_said():
    async with sim() as engine:
        whole = (await run(engine, ask(max_tokens=30))).choices[0]
        stop = whole.token_ids[5]
        first = list(whole.token_ids).index(stop)
        cut = await run(engine, ask(max_tokens=30, sampling={"stop_token_ids": (stop,)}))
        later = await run(engine, ask(max_tokens=30, sampling={"stop_token_ids": (stop,), "min_tokens": first + 2}))
    [choice] = cut.choices
    assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
    assert cut.usage.completion_tokens == first + 1
    assert choice.text.split() == whole.text.split()[:first]
    assert later.usage.completion_tokens >= first + 2


# --- embeddings


async def test_embeddings_are_unit_vectors_and_near_for_texts_alike():
    async with sim(embedding_size=32) as engine:
        texts = ["the cat sat on the mat", "the cat sat on a mat", "stock prices fell sharply"]
        made = await engine.embed([t.TextPrompt(text=text) for text in texts])
        short = await engine.embed([t.TextPrompt(text=texts[0])], dimensions=8)
        with pytest.raises(InvalidArgument) as caught:
            await engine.embed([t.TextPrompt(text="x")], dimensions=33)
    vectors = [one.vector for one in made]
    assert [len(vector) for vector in vectors] == [32] * 3
    assert [sum(x * x for x in vector) for vector in [*vectors, short[0].vector]] == pytest.approx([1.0] * 4)
    near, far = (sum(a * b for a, b in zip(vectors[0], vectors[i], strict=True)) for i in (1, 2))
    assert near > far
    assert len(short[0].vector) == 8
    assert caught.value.param == "dimensions"
    assert made[0].usage == t.Usage(prompt_tokens=6, completion_tokens=0)


def test_an_embedding_depends_on_seed_and_tokens():
    made = [embed(ids, size=8, dimensions=None, seed=seed) for ids, seed in (((1,), "a"), ((2,), "a"), ((1,), "b"))]
    assert len({tuple(vector) for vector in made}) == 3
    assert embed((1,), size=8, dimensions=None, seed="a") == made[0]


# --- scores and labels


async def test_scores_are_higher_for_texts_that_share_words():
    async with sim() as engine:
        same, near, far = await engine.score("where is the cat", ["where is the cat", "the cat is here", "stock falls"])
        again = await engine.score("where is the cat", ["stock falls"])
    async with sim(seed=1) as engine:
        other = await engine.score("where is the cat", ["stock falls"])
    assert same.value == pytest.approx(1.0)
    assert same.value > near.value > far.value == again[0].value != other[0].value
    assert far.usage == t.Usage(prompt_tokens=6, completion_tokens=0)


async def test_labels_follow_their_words():
    prompts = [t.TextPrompt(text=f"a {label} day") for label in ("bad", "good", "good")]
    async with sim(labels=("good", "bad")) as engine:
        bad, good, again = await engine.classify(prompts)
    assert (bad.label, good.label) == ("bad", "good")
    assert list(bad.probabilities) == ["good", "bad"]
    assert sum(bad.probabilities.values()) == pytest.approx(1.0)
    assert good == again
    assert good.usage.prompt_tokens == 3


async def test_embeddings_scores_and_labels_meet_faults():
    async with sim(faults=[{"kind": "refuse", "marker": "no"}, {"kind": "die", "marker": "break"}]) as engine:
        with pytest.raises(Overloaded):
            await engine.embed([t.TextPrompt(text="no")])
        with pytest.raises(Transient):
            await engine.score("break", ["x"])
        assert len(await engine.classify([t.TextPrompt(text="yes")])) == 1
    async with sim(fault="crash") as engine:
        with pytest.raises(EngineDead):
            await engine.classify([t.TextPrompt(text="x")])
    async with sim(max_model_len=4) as engine:
        with pytest.raises(ContextOverflow):
            await engine.score("two words", ["three more words"])


@settings(max_examples=50, deadline=None)
@given(st.recursive(
    st.sampled_from([{"type": "integer"}, {"type": "string"}, {"enum": [1, "x"]}, {"type": "number", "minimum": 2}]),
    lambda inner: st.one_of(
        st.builds(lambda one: {"type": "array", "items": one, "maxItems": 3}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"type": "object", "properties": {"a": a, "b": b}, "required": ["a"]}, inner, inner),
    ),
    max_leaves=8,
), st.integers(0, 1000))  # fmt: skip
def test_any_schema_of_known_parts_is_satisfied(schema, seed):
    jsonschema.validate(json_value(schema, str(seed)), schema)
