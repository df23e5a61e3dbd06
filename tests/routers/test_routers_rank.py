import collections
import itertools
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import trunnion as t
from trunnion_routers.affinity import Affinity
from trunnion_routers.config import AffinityConfig, LeastLoadedConfig, PowerOfTwoConfig

NAMES = ("least_loaded", "power_of_two", "affinity")
REQUEST = t.GenerateRequest(prompt=t.TextPrompt(text="x" * 64))


def router(name, **config):
    return t.get_registry().build_router(name, config)


def replica(name, in_flight=0, *, reported=None, age=0.0, **more):
    load = None if reported is None else t.LoadReport(running=reported, waiting=0, timestamp=0.0)
    return t.Candidate(id=name, in_flight=in_flight, load=load, load_age=None if load is None else age, **more)


def order(ranking):
    return [candidate.id for group in ranking.groups for candidate in group.candidates]


def ask(text="x" * 64, **fields):
    return t.GenerateRequest(prompt=t.TextPrompt(text=text), **fields)


candidates = st.lists(
    st.builds(
        t.Candidate,
        id=st.integers(0, 30).map(str),
        in_flight=st.integers(0, 9),
        load=st.none()
        | st.builds(t.LoadReport, running=st.integers(0, 9), waiting=st.integers(0, 9), timestamp=st.just(0.0)),
        load_age=st.none() | st.floats(0, 20),
        weight=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        adapters=st.sampled_from([frozenset(), frozenset({"a"})]),
    ),
    unique_by=lambda candidate: candidate.id,
    max_size=12,
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(choices=candidates, sessions=st.lists(st.sampled_from("abc"), max_size=6), adapter=st.sampled_from([None, "a"]))
def test_every_usable_candidate_exactly_once(name, choices, sessions, adapter):
    one = router(name)
    usable = sorted(candidate.id for candidate in choices if candidate.weight > 0)
    for session in [None, *sessions]:
        req = ask(session=session, adapter=adapter)
        ranking = one.rank(req, choices)
        assert sorted(order(ranking)) == usable
        assert all(group.candidates and group.reason for group in ranking.groups)
        if ranking.first is None:
            assert usable == []
        else:
            one.routed(req, ranking.first)
            one.completed(req, ranking.first, ok=session != "b")
    one.replicas_changed(choices[:2])
    assert sorted(order(one.rank(REQUEST, choices))) == usable


@pytest.mark.parametrize("name", NAMES)
def test_no_candidates_no_groups(name):
    assert router(name).rank(REQUEST, []).groups == ()
    assert router(name).rank(REQUEST, [replica("a", weight=0)]).first is None


@pytest.mark.parametrize("name", ["least_loaded", "affinity"])
def test_the_lightest_comes_first(name):
    ranking = router(name).rank(REQUEST, [replica("a", 3), replica("b", 1), replica("c", 2), replica("d", 1)])
    assert order(ranking) == ["b", "d", "c", "a"]
    assert [len(group.candidates) for group in ranking.groups] == [2, 1, 1]


@pytest.mark.parametrize("name", ["least_loaded", "affinity"])
def test_load_is_counted_per_weight(name):
    big, small = replica("big", 5, weight=4), replica("small", 2)
    assert order(router(name).rank(REQUEST, [small, big])) == ["big", "small"]
    idle = [replica("small"), replica("big", weight=4)]
    assert router(name).rank(REQUEST, idle).first.id == "big"


@pytest.mark.parametrize("name", NAMES)
def test_the_larger_of_own_count_and_report_counts(name):
    busy, calm = replica("busy", 0, reported=5), replica("calm", 2, reported=0)
    assert order(router(name).rank(REQUEST, [busy, calm])) == ["calm", "busy"]


@pytest.mark.parametrize("name", NAMES)
def test_max_report_age_ignores_stale_reports(name):
    stale, other = replica("stale", 0, reported=9, age=6.0), replica("other", 1)
    assert order(router(name).rank(REQUEST, [other, stale]))[0] == "stale"
    assert order(router(name, max_report_age=10.0).rank(REQUEST, [other, stale]))[0] == "other"
    undated = t.Candidate(id="x", load=t.LoadReport(running=9, waiting=9, timestamp=0.0))
    assert order(router(name).rank(REQUEST, [other, undated]))[0] == "x"


def test_power_of_two_spreads_and_its_seed_repeats():
    replicas = [replica(str(i)) for i in range(6)]
    draws = [[order(router("power_of_two", seed=seed).rank(REQUEST, replicas)) for _ in range(2)] for seed in range(9)]
    assert all(one == two for one, two in draws)
    assert len({tuple(one) for one, _ in draws}) > 3
    one = router("power_of_two", seed=1)
    firsts = collections.Counter(one.rank(REQUEST, replicas).first.id for _ in range(300))
    assert set(firsts) == {str(i) for i in range(6)}


def test_power_of_two_takes_the_lighter_of_its_two():
    replicas = [replica(str(i), i) for i in range(5)]
    one = router("power_of_two", seed=3)
    for _ in range(50):
        first, second, *rest = order(one.rank(REQUEST, replicas))
        assert int(first) < int(second)
        assert rest == sorted(rest, key=int)


def test_weighted_traffic_is_shared_by_weight():
    one, flying = router("least_loaded"), collections.Counter()
    for _ in range(60):
        replicas = [
            replica(name, flying[name], weight=weight) for name, weight in (("a", 1), ("b", 2), ("c", 3), ("d", 0))
        ]
        flying[one.rank(REQUEST, replicas).first.id] += 1
    assert flying == {"a": 10, "b": 20, "c": 30}


# --- affinity: every setting has an effect


def affinity(**config):
    return Affinity(AffinityConfig(**{"prefix_block": 16, **config}))


@pytest.mark.parametrize(
    ("setting", "make"),
    [
        ("session", lambda: (ask("short", session="s"), {})),
        ("adapter", lambda: (ask("short", adapter="a"), {"adapters": frozenset({"a"})})),
        ("prefix", lambda: (ask("y" * 64), {})),
    ],
)
def test_an_affinity_is_worth_its_load_and_no_more(setting, make):
    req, fields = make()
    one = affinity(**{setting: 3.0})
    one.routed(req, replica("home"))
    for behind, first in ((0, "home"), (2, "home"), (4, "other")):
        ranking = one.rank(req, [replica("other"), replica("home", behind, **fields)])
        assert ranking.first.id == first, behind
    off = affinity(**{setting: 0.0})
    off.routed(req, replica("home"))
    assert off.rank(req, [replica("other"), replica("home", 1, **fields)]).first.id == "other"


def test_reasons_are_given():
    one = affinity()
    req = ask("y" * 64, session="s", adapter="a")
    one.routed(req, replica("home"))
    [group] = one.rank(req, [replica("home", adapters=frozenset({"a"}))]).groups
    assert group.reason == "load 1, holds the session, holds the adapter, saw 100% of the prefix"


def test_prefix_block_and_shares():
    one = affinity(prefix_block=16, prefix=8.0)
    one.routed(ask("a" * 16 + "b" * 16), replica("half"))
    [group] = one.rank(ask("a" * 16 + "c" * 16), [replica("half")]).groups
    assert "saw 50% of the prefix" in group.reason
    coarse = affinity(prefix_block=32)
    coarse.routed(ask("a" * 16 + "b" * 16), replica("half"))
    [group] = coarse.rank(ask("a" * 16 + "c" * 16), [replica("half")]).groups
    assert group.reason == "load 1"
    assert one._blocks(ask("short")) == []


@pytest.mark.parametrize(
    "prompt",
    [
        t.TextPrompt(text="z" * 100_000),
        t.TokensPrompt(token_ids=range(100_000)),
        t.MessagesPrompt(messages=tuple({"role": "user", "content": "z" * 100} for _ in range(1000))),
    ],
)
def test_long_prompts_cost_a_bounded_number_of_blocks(prompt):
    assert len(affinity()._blocks(t.GenerateRequest(prompt=prompt))) == 64


def test_prefixes_of_different_adapters_are_apart():
    one = affinity()
    one.routed(ask("a" * 32, adapter="x"), replica("home"))
    assert one._prefix_shares(ask("a" * 32, adapter="x")) == {"home": 1.0}
    assert one._prefix_shares(ask("a" * 32)) == {}


def test_max_entries_bounds_the_indexes_and_forgets_the_oldest():
    one = affinity(max_entries=10)
    for i in range(200):
        one.routed(ask(f"{i:016d}" * 4, session=f"s{i}"), replica("home"))
        one.rank(ask("short", session="s191"), [replica("home")])
    assert len(one._sessions) == len(one._prefixes) == 10
    kept = [i for i in range(200) if one._sessions.get(f"s{i}")]
    assert kept == list(range(190, 200))


def test_what_is_gone_or_failed_is_forgotten():
    one, req = affinity(), ask(session="s")
    one.routed(req, replica("home"))
    one.completed(req, replica("home"), ok=True)
    assert one._sessions.get("s") == "home"
    one.completed(req, replica("other"), ok=False)
    assert one._sessions.get("s") == "home"
    one.completed(req, replica("home"), ok=False)
    assert one._sessions.get("s") is None
    one.routed(req, replica("home"))
    one.replicas_changed([replica("other")])
    assert (len(one._sessions), len(one._prefixes)) == (0, 0)


def test_every_setting_is_tested():
    tested = Path(__file__).read_text(encoding="utf-8")
    for config in (LeastLoadedConfig, PowerOfTwoConfig, AffinityConfig):
        for name in config.model_fields:
            assert f"{name}=" in tested or f'("{name}", ' in tested, f"give {name} a test that it has an effect"


def test_routers_keep_to_the_protocol():
    for name in NAMES:
        assert isinstance(router(name), t.Router)
    assert len(set(itertools.chain(NAMES, (r.name for r in t.get_registry().routers())))) >= 3
