"""What a replica tells of blocks that have not ended, and of its warnings."""

import logging
import time

import pytest

from trunnion import Completion, TextPrompt
from trunnion.events import Usage
from trunnion_ray.data.runner import Answer
from trunnion_ray.data.underway import Underway

ANSWER = Answer(
    TextPrompt(text="x"), Completion(choices=[], usage=Usage(prompt_tokens=3, completion_tokens=2)), 0.1, "block"
)


class Runner:
    outcomes = ()

    def open_blocks(self):
        return [(("task", 1), list(self.outcomes))] if self.outcomes else []


class Desk(list):
    def underway(self, parts, warned):
        self.append((parts, warned))


@pytest.fixture
def replica(monkeypatch):
    monkeypatch.setattr("trunnion_ray.data.underway._SECONDS", 0.02)
    runner, desk = Runner(), Desk()
    made = Underway(runner, desk, None)
    yield runner, desk
    made.stop()


def wait_for(desk, condition):
    deadline = time.monotonic() + 10
    while not any(condition(*told) for told in list(desk)):
        assert time.monotonic() < deadline, list(desk)
        time.sleep(0.01)


def test_blocks_are_told_while_they_are_under_way_and_once_when_there_are_none(replica):
    runner, desk = replica
    time.sleep(0.1)
    assert not desk  # nothing to tell
    runner.outcomes = [ANSWER, None, None]
    wait_for(desk, lambda parts, _: parts and parts["task", 1].rows == 1)
    runner.outcomes = [ANSWER, None, ANSWER]
    wait_for(desk, lambda parts, _: parts and (parts["task", 1].rows, parts["task", 1].completion_tokens) == (2, 4))
    runner.outcomes = ()
    wait_for(desk, lambda parts, _: not parts)
    told = len(desk)
    time.sleep(0.1)
    assert len(desk) == told


def test_warnings_are_told_once(replica):
    _, desk = replica
    logging.getLogger("trunnion.batch").info("not this")
    logging.getLogger("trunnion.batch").warning("rows wait for %s", "it")
    wait_for(desk, lambda _, warned: warned == ["rows wait for it"])
    assert sum(len(warned) for _, warned in desk) == 1


def test_warnings_stay_in_the_log_of_the_process(replica, monkeypatch, capsys):
    _, desk = replica
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logging.getLogger("trunnion.batch").warning("rows wait")
    wait_for(desk, lambda _, warned: warned == ["rows wait"])
    assert "rows wait" in capsys.readouterr().err
