"""How many replicas run is told as of now, or not at all; Serve is a fake here."""

import threading
from types import SimpleNamespace

import pytest

from trunnion_ray.serve import census
from trunnion_ray.serve.census import Census


@pytest.fixture
def serve(monkeypatch):
    """Stand for a Serve with an application of two models, one of them with two replicas."""
    fake = SimpleNamespace(states={"RUNNING": 2}, asked=0, go_on=threading.Event())
    fake.go_on.set()

    def status():
        fake.asked += 1
        fake.go_on.wait(timeout=30)
        deployments = {"a": SimpleNamespace(replica_states=fake.states), "b": SimpleNamespace(replica_states={})}
        return SimpleNamespace(applications={"app": SimpleNamespace(deployments=deployments)})

    monkeypatch.setattr(census.serve, "status", status)
    monkeypatch.setattr(census.serve, "get_replica_context", lambda: SimpleNamespace(app_name="app"))
    yield fake
    fake.go_on.set()


@pytest.fixture
def counting(serve):
    return Census({"a-name": "a", "b-name": "b", "gone": "gone"}, {})


async def test_who_asks_is_told_of_now(serve, counting, monkeypatch):
    await counting.look()
    assert counting._notes == {"replicas": {"a-name": 2, "b-name": 0}}
    serve.states = {"STARTING": 1}
    monkeypatch.setattr(census, "_PERIOD", 0)
    await counting.look()
    assert counting._notes == {"replicas": {"a-name": 0, "b-name": 0}}


async def test_serve_is_asked_once_in_a_while(serve, counting, monkeypatch):
    monkeypatch.setattr(census, "_PERIOD", 600)
    counting._counted = -601
    for _ in range(3):
        await counting.look()
    assert serve.asked == 1


async def test_a_serve_that_does_not_answer_keeps_nobody_waiting_and_nothing_old_is_told(serve, counting, monkeypatch):
    monkeypatch.setattr(census, "_PERIOD", 0)
    monkeypatch.setattr(census, "_PATIENCE", 0.05)
    await counting.look()
    serve.go_on.clear()
    for _ in range(2):
        await counting.look()
        assert counting._notes == {}
    assert serve.asked == 2, "one question at a time"
    serve.go_on.set()
    monkeypatch.setattr(census, "_PATIENCE", 30)
    await counting.look()
    assert counting._notes["replicas"]["a-name"] == 2
    counting.close()


async def test_a_serve_that_fails_leaves_no_count(serve, counting, monkeypatch):
    monkeypatch.setattr(census, "_PERIOD", 0)
    await counting.look()
    counting._application = "deleted"
    await counting.look()
    assert counting._notes == {}
