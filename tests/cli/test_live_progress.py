"""How a batch comes along is shown by the clock: also while no row is written, and at every width of a terminal."""

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from trunnion_batch.account import Account
from trunnion_batch.recovery import Recovery
from trunnion_cli.live_bar import LiveBar
from trunnion_cli.pace import Pace
from trunnion_cli.progress import Progress
from trunnion_cli.ray_batch import _watch
from trunnion_cli.starting import StartNotice
from trunnion_cli.ticker import Ticker


class Terminal(io.StringIO):
    def isatty(self):
        return True


def wait_for(stream, *texts):
    deadline = time.monotonic() + 20
    while not all(text in stream.getvalue() for text in texts):
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.01)


def add(account, rows, *, replayed=False):
    for _ in range(rows):
        account.add({"num_input_tokens": 3, "num_generated_tokens": 2}, replayed=replayed)


def watched(monkeypatch, kind=io.StringIO):
    made = kind()
    monkeypatch.setattr("sys.stderr", made)
    monkeypatch.setattr("trunnion_cli.progress._SECONDS", 0.0)
    monkeypatch.setattr("trunnion_cli.progress._TICK", 0.01)
    return made


def test_lines_come_while_one_row_holds_the_others_up(monkeypatch):
    stream = watched(monkeypatch)
    progress = Progress(20, Account())
    progress.live, progress.in_flight = Account(), lambda: 8
    with progress:
        wait_for(stream, "0 of 20 rows written, 8 in flight, 0.0 rows/s")
        add(progress.account, 4)
        add(progress.live, 12)
        wait_for(stream, "4 of 20 rows written, 12 answered, 8 in flight")
        add(progress.account, 8)
        progress.replacing = lambda: True
        wait_for(stream, "12 of 20 rows written, 8 in flight, a new engine starts")
    said = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == said  # it ends with the run


def test_a_job_that_counts_elsewhere_is_asked_and_says_that_it_starts(monkeypatch):
    stream = watched(monkeypatch)
    progress = Progress(20, Account())
    progress.live = Account()
    progress.starting = lambda: "2 replicas of sim"
    with progress:
        wait_for(stream, "0 of 20 rows written, starting 2 replicas of sim ...")
        progress.look = lambda: progress.live.rows or add(progress.live, 5, replayed=True)
        wait_for(stream, "0 of 20 rows written, 5 answered, 5 replayed, 0.0 rows/s, tokens/s 0 in, 0 out")
        assert "left" not in stream.getvalue()  # what was known before tells nothing of how fast the engine is


def test_rows_that_are_answered_are_no_standstill(monkeypatch):
    stream = watched(monkeypatch)
    monkeypatch.setattr("trunnion_cli.stillness.SECONDS", 0.06)
    progress = Progress(20, Account(), Recovery())
    progress.live, progress.in_flight = Account(), lambda: 8
    progress.look = lambda: add(progress.live, 1)
    with progress:
        wait_for(stream, "50 answered")
        assert "no row was finished" not in stream.getvalue()
        progress.look = lambda: None
        wait_for(stream, "no row was finished for 0 s; waiting for the engine, with 8 rows in flight")


def test_a_terminal_shows_it_by_the_clock_too(monkeypatch):
    made = watched(monkeypatch, Terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    progress = Progress(20, Account())
    progress.live, progress.in_flight = Account(), lambda: 8
    add(progress.live, 12)
    with progress:
        wait_for(made, "0/20", "12 answered, 8 in flight", "left")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_shows_what_matters_and_cuts_the_rest(width):
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    bar = LiveBar(20000, console)
    detail = (
        "8120 answered, 13 failed, 4470 replayed, 640 in flight, 1234.5 rows/s, tokens/s 123456 in, 123456 out, " * 2
    )
    bar.show(4470, detail, "1:23:45")
    console.print(bar.get_renderable())
    first, second = screen.getvalue().rstrip("\n").split("\n")
    for text in ("\u2501" * 4, "4470/20000", "0:00:00", "1:23:45 left"):
        assert text in first
    assert second.startswith("8120 answered, 13 failed, 4470 replayed")
    assert second.rstrip().endswith("\u2026")
    assert max(len(first), len(second)) <= width


def test_the_time_that_is_left_is_told_by_what_the_run_did_itself():
    pace, live = Pace(), Account()
    pace.look(live, 0, now=1000.0)
    assert pace.left(live, 2000, now=1100.0) is None
    pace.look(live, 0, now=1100.0)  # the engine starts
    add(live, 500, replayed=True)
    pace.look(live, 64, now=1200.0)  # the journal answers
    assert pace.left(live, 2000, now=1200.0) is None
    pace.look(live, 64, now=1205.0)
    add(live, 100)
    pace.look(live, 64, now=1210.0)
    assert pace.left(live, 2000, now=1210.0) == "0:02:20"  # 1400 rows, 10 a second
    assert pace.left(live, None, now=1210.0) is None
    add(live, 1400)
    assert pace.left(live, 2000, now=1220.0) == "0:00:00"


def test_on_ray_the_desk_tells_what_is_answered(monkeypatch):
    monkeypatch.setattr("trunnion_cli.ray_batch._LOOK_SECONDS", 0.0)
    progress = Progress(20, Account())
    job = SimpleNamespace(progress=progress, spec=SimpleNamespace(engine="sim"))
    given = SimpleNamespace(replicas=1, models={"judge": SimpleNamespace(replicas=2)})
    seen = SimpleNamespace(account=Account(), in_flight=0)
    begun = SimpleNamespace(seen=lambda: seen)
    _watch(job, given, begun)
    progress.look()
    assert (progress.starting(), progress.replicas) == ("3 replicas of sim on Ray", 3)
    seen.in_flight = 64
    add(seen.account, 7)
    progress.look()
    assert (progress.starting(), progress.in_flight(), progress.live.rows) == ("", 64, 7)
    begun.seen = lambda: 1 / 0  # Ray is gone: what is known stays
    progress.look()
    assert progress.live.rows == 7


def test_a_start_that_takes_long_is_told(monkeypatch):
    stream = watched(monkeypatch)
    monkeypatch.setattr("trunnion_cli.starting._QUIET", 0.01)
    with StartNotice("vllm"):
        wait_for(stream, "starting vllm ...\n")
        monkeypatch.setattr("trunnion_cli.starting._SECONDS", 0.0)
        wait_for(stream, "starting vllm ... 0 s\n")
    before = stream.getvalue()
    monkeypatch.setattr("trunnion_cli.starting._QUIET", 60)
    with StartNotice("sim"):
        pass
    assert stream.getvalue() == before


def test_a_ticker_ends():
    calls = []
    ticker = Ticker(lambda: calls.append(1), 0.001, "test")
    ticker.stop()  # never started
    ticker = Ticker(lambda: calls.append(1), 0.001, "test")
    ticker.start()
    while not calls:
        time.sleep(0.001)
    ticker.stop()
    assert not ticker._thread.is_alive()
