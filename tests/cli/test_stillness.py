"""While no row is finished, somebody is told what is waited for, and which settings would end the wait."""

import io
import itertools
import time

import pytest

from trunnion_batch.account import Account
from trunnion_batch.recovery import Recovery
from trunnion_cli.progress import Progress
from trunnion_cli.stillness import Stillness, limits


class Terminal(io.StringIO):
    def isatty(self):
        return True


STREAMS = pytest.mark.parametrize("kind", [io.StringIO, Terminal])


def watched(monkeypatch, kind):
    made = kind()
    monkeypatch.setattr("sys.stderr", made)
    monkeypatch.setattr("trunnion_cli.stillness.SECONDS", 0.06)
    return made


def said(stream):
    return " ".join(stream.getvalue().split())


def wait_for(stream, text):
    deadline = time.monotonic() + 20
    while text not in said(stream):
        assert time.monotonic() < deadline, said(stream)
        time.sleep(0.01)


@STREAMS
def test_it_is_said_what_is_waited_for(monkeypatch, kind):
    stream = watched(monkeypatch, kind)
    progress = Progress(10, Account(), Recovery(stall_timeout=300))
    progress.in_flight = lambda: 7
    with progress:
        wait_for(stream, "waiting for the engine, with 7 rows in flight; an engine without a sign of life for 300 s")
        progress.replacing = lambda: True
        wait_for(stream, "waiting for a new engine in the place of one that died, with 7 rows in flight")
        progress.waits = lambda: "something else"
        wait_for(stream, "no row was finished for 0 s; waiting for something else")


@STREAMS
def test_nothing_is_said_while_rows_are_finished_or_nothing_is_asked(monkeypatch, kind):
    stream = watched(monkeypatch, kind)
    progress = Progress(10, Account(), Recovery())
    asked = []
    progress.in_flight = lambda: asked.append(1) or 0
    with progress:
        deadline = time.monotonic() + 20
        while not asked:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "no row was finished" not in said(stream)
    numbers = itertools.count()
    still = Stillness(numbers.__next__, lambda: "nothing", "")  # each look finds another row finished
    still.start()
    deadline = time.monotonic() + 20
    while next(numbers) < 10_000:
        assert time.monotonic() < deadline
        time.sleep(0.00001)
    still.stop()
    assert "no row was finished" not in said(stream)


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({}, ("for ever", "--stall-timeout", "--row-timeout")),
        ({"row_timeout": 5}, ("hangs is waited for (--stall-timeout)", "5 s in the engine (row_timeout)")),
        ({"stall_timeout": 9}, ("for 9 s is replaced (stall_timeout)", "any time (--row-timeout)")),
    ],
)
def test_the_limits_are_named_with_their_flags(given, texts):
    for text in texts:
        assert text in limits(Recovery(**given))
