"""A server that everything happened to holds no more than before. The long ones take ten minutes each."""

import asyncio
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[2] / "benches"


def soaked(engine, minutes, monkeypatch, **more):
    monkeypatch.syspath_prepend(str(BENCHES))
    monkeypatch.delitem(sys.modules, "soak", raising=False)
    import soak

    return asyncio.run(soak.soak(engine, minutes=minutes, clients=64, **more))


def check(made, growth_mib, connections=4):
    assert not made["wrong"]
    assert made["requests"] == sum(made["ended"].values())
    before, after = made["at_rest_before"], made["at_rest_after"]
    assert after["in_flight"] == 1  # the question itself
    assert after["engine"] == 0
    assert after["tasks"] <= before["tasks"] + 2
    assert after["fds"] <= before["fds"] + connections
    assert after["threads"] <= before["threads"] + 4
    first, last = made["busy_first_and_last_quarter"]["rss_mib"]
    assert last - first < growth_mib
    assert after["rss_mib"] - before["rss_mib"] < growth_mib


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_soak(monkeypatch):
    made = soaked("sim", 0.3, monkeypatch)
    assert made["requests"] > 100
    assert {"left in mid-stream", "load 200", "adapter 200", "bad 400"} <= made["ended"].keys()
    check(made, 20)


def check_behind(made, growth_mib):
    before, after = made["at_rest_before"], made["at_rest_after"]
    assert after["in_flight_behind"] == 0
    assert after["tasks_behind"] <= before["tasks_behind"] + 4
    assert after["fds_behind"] <= before["fds_behind"] + 8
    assert after["rss_mib_behind"] - before["rss_mib_behind"] < growth_mib


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_short_soak_behind_a_gateway(monkeypatch):
    made = soaked("sim", 0.3, monkeypatch, gateway=True)
    assert {"left in mid-stream", "load 200", "adapter 200", "other 200"} <= made["ended"].keys()
    check(made, 20, connections=16)  # HAProxy keeps some open
    check_behind(made, 40)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_ten_minutes_behind_a_gateway(monkeypatch):
    made = soaked("sim", 10, monkeypatch, gateway=True)
    check(made, 20, connections=16)  # HAProxy keeps some open
    check_behind(made, 40)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_minutes_of_the_simulated_engine(monkeypatch):
    check(soaked("sim", 10, monkeypatch), 20)


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.timeout(1800)
def test_ten_minutes_of_vllm(monkeypatch):
    check(soaked("vllm", 10, monkeypatch), 40)
