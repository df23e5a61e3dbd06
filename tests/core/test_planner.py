import pytest

import trunnion as t
from trunnion.errors import ConfigError, UnsupportedFeature
from trunnion.planner import Planner


def request_stage(name, consumes=None, produces=None, **more):
    return t.StagePlugin(name=name, factory="a:b", consumes=consumes, produces=produces, **more)


def stream_stage(name, **more):
    return t.StagePlugin(name=name, factory="a:b", shape="stream", **more)


TEMPLATE = request_stage("template", "messages", "text")
TOKENIZE = request_stage("tokenize", "text", "token_ids")
DETOKENIZE = stream_stage("detokenize", automatic=False, order=10)
STOP = stream_stage("stop", supplies=frozenset({"sampling.stop"}), order=20)
TOOLS = stream_stage("tools", supplies=frozenset({"tools", "tool_choice"}), needs=("template",), order=40)
CHOICE = request_stage("choice", supplies=frozenset({"tool_choice"}))
ENRICH = request_stage("enrich", automatic=False)
MASK = stream_stage("mask", automatic=False, order=60)
ALL = (TEMPLATE, TOKENIZE, DETOKENIZE, STOP, TOOLS, CHOICE, ENRICH, MASK)


def plan(carries, accepts, stages=ALL, inserted=(), **more):
    return Planner(stages, inserted).plan(carries, accepts, **more)


@pytest.mark.parametrize(
    ("carries", "accepts", "sends", "chain"),
    [
        ("messages", ("token_ids", "text"), "token_ids", ("template", "tokenize")),
        ("messages", ("text", "token_ids"), "text", ("template",)),
        ("messages", ("messages", "token_ids"), "messages", ()),
        ("text", ("messages", "token_ids"), "token_ids", ("tokenize",)),
        ("token_ids", ("token_ids", "text"), "token_ids", ()),
    ],
)
def test_the_most_preferred_kind_that_can_be_reached(carries, accepts, sends, chain):
    made = plan(carries, accepts)
    assert (made.carries, made.sends, made.request_stages, made.stream_stages) == (carries, sends, chain, ())


def test_the_cheapest_chain_wins():
    direct = request_stage("direct", "messages", "token_ids", cost=1.5)
    assert plan("messages", ("token_ids",), (*ALL, direct)).request_stages == ("direct",)
    dear = request_stage("direct", "messages", "token_ids", cost=2.5)
    assert plan("messages", ("token_ids",), (*ALL, dear)).request_stages == ("template", "tokenize")


def test_ties_go_to_the_name():
    again = request_stage("another", "text", "token_ids")
    for order in ((TOKENIZE, again), (again, TOKENIZE)):
        assert plan("text", ("token_ids",), order).request_stages == ("another",)


def test_a_prompt_nobody_can_convert_is_refused():
    with pytest.raises(UnsupportedFeature) as caught:
        plan("token_ids", ("messages", "text"), engine="e")
    assert caught.value.param == "prompt"
    assert "engine 'e' takes prompts as messages or text, and no stage turns token_ids into that" in str(caught.value)
    with pytest.raises(UnsupportedFeature, match="takes no prompts"):
        plan("text", (), engine="e")


def test_stages_supply_what_the_engine_lacks():
    made = plan("text", ("text",), lacking=("sampling.stop",))
    assert made.stream_stages == ("stop",)
    assert made.supplied == {"sampling.stop"}
    assert plan("text", ("text",)).stream_stages == ()


def test_a_supplier_counts_only_with_what_it_needs():
    made = plan("messages", ("text",), lacking=("tools", "tool_choice"))
    assert (made.request_stages, made.stream_stages) == (("choice", "template"), ("tools",))
    assert made.supplied == {"tools", "tool_choice"}
    assert plan("text", ("text",), lacking=("tools",)).supplied == frozenset()
    assert plan("messages", ("messages",), lacking=("tools",)).supplied == frozenset()


def test_stream_stages_stand_in_their_order():
    made = plan("messages", ("text",), lacking=("tools", "sampling.stop"), detokenize=True)
    assert made.stream_stages == ("detokenize", "stop", "tools")
    assert made.detokenize_in_pipeline


def test_no_detokenizer_is_a_refusal_in_words():
    with pytest.raises(UnsupportedFeature, match="no stage 'detokenize'") as caught:
        plan("text", ("text",), (TEMPLATE,), detokenize=True)
    assert caught.value.param == "detokenize"


@pytest.mark.parametrize(
    ("position", "chain"),
    [
        ("first", ("enrich", "template", "tokenize")),
        ("last", ("template", "tokenize", "enrich")),
        ("", ("template", "tokenize", "enrich")),
        ("before:template", ("enrich", "template", "tokenize")),
        ("after:template", ("template", "enrich", "tokenize")),
        ("before:tokenize", ("template", "enrich", "tokenize")),
        ("after:tokenize", ("template", "tokenize", "enrich")),
    ],
)
def test_request_stages_are_inserted_by_position(position, chain):
    inserted = (t.StageSpec(stage="enrich", position=position),)
    assert plan("messages", ("token_ids",), inserted=inserted).request_stages == chain


@pytest.mark.parametrize(
    ("position", "stages"),
    [
        ("", ("detokenize", "stop", "mask")),
        ("first", ("mask", "detokenize", "stop")),
        ("last", ("detokenize", "stop", "mask")),
        ("before:stop", ("detokenize", "mask", "stop")),
        ("after:detokenize", ("detokenize", "mask", "stop")),
    ],
)
def test_stream_stages_are_inserted_by_position(position, stages):
    inserted = (t.StageSpec(stage="mask", position=position),)
    made = plan("text", ("text",), inserted=inserted, lacking=("sampling.stop",), detokenize=True)
    assert made.stream_stages == stages


@pytest.mark.parametrize("position", ["frist", "before", "before:", "after:nobody", "before:stop", "after:enrich"])
def test_a_position_that_can_never_be_is_refused_at_once(position):
    with pytest.raises(ConfigError, match="position") as caught:
        Planner(ALL, (t.StageSpec(stage="enrich", position=position),))
    assert caught.value.param == "position"


def test_a_stage_is_never_left_out_in_silence():
    inserted = (t.StageSpec(stage="enrich", position="after:template"),)
    with pytest.raises(
        ConfigError, match="no part of the plan for prompts given as text: tokenize; place it first or last"
    ):
        plan("text", ("token_ids",), inserted=inserted)


def test_an_unknown_or_doubled_stage_is_refused():
    with pytest.raises(ConfigError, match="no stage is called 'nobody'"):
        Planner(ALL, (t.StageSpec(stage="nobody"),))
    with pytest.raises(ConfigError, match="'enrich' is listed 2 times"):
        Planner(ALL, (t.StageSpec(stage="enrich"), t.StageSpec(stage="enrich", position="first")))


def test_a_configured_automatic_stage_stays_where_it_is():
    inserted = (t.StageSpec(stage="tokenize", config={"x": 1}),)
    assert plan("messages", ("token_ids",), inserted=inserted).request_stages == ("template", "tokenize")
    assert plan("messages", ("messages",), inserted=inserted).request_stages == ()


def test_an_automatic_stage_with_a_position_is_moved_not_doubled():
    inserted = (t.StageSpec(stage="choice", position="last"),)
    made = plan("messages", ("text",), inserted=inserted, lacking=("tool_choice", "tools"))
    assert made.request_stages == ("template", "choice")


def test_a_listed_converter_of_the_users_own_joins_the_chain():
    own = request_stage("own", "text", "token_ids", automatic=False, cost=9)
    assert plan("messages", ("token_ids",), (*ALL, own)).request_stages == ("template", "tokenize")
    listed = (t.StageSpec(stage="own"),)
    assert plan("messages", ("token_ids",), (*ALL, own), listed).request_stages == ("template", "own")
    assert plan("token_ids", ("token_ids",), (*ALL, own), listed).request_stages == ()
