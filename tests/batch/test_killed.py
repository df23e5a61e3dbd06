"""A job that is killed at any moment ends as if nobody had touched it, and pays again only for what was in flight."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunnion import engine_spec
from trunnion.rows import RowOptions
from trunnion_batch.account import Account
from trunnion_batch.answering import Answerer
from trunnion_batch.journal import Journal
from trunnion_batch.recovery import Recovery
from trunnion_batch.row_input import InputRow
from trunnion_batch.run import BatchRun
from trunnion_batch.supervisor import Supervisor

CONCURRENCY = 16


def rows(count):
    """Return rows of which a third are like others, sampled, so that each must have an answer of its own."""
    numbers = (i if i % 3 else i % 30 for i in range(count))
    sampling = {"temperature": 1}
    return [{"id": i, "prompt": f"row {number}", "sampling_params": sampling} for i, number in enumerate(numbers)]


def kill_at_random(folder, count, kills, seed):
    """Run a batch, kill it so often and let it end; return how often it was killed, and its output."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    command = [
        sys.executable, "-m", "trunnion_cli.main", "run", source, target, "--engine", "sim", "--set", "tpot=0.004",
        "--sampling", "max_tokens=4", "--concurrency", str(CONCURRENCY), "--journal", folder / "journal",
    ]  # fmt: skip
    draw = random.Random(seed)
    done = 0
    for _ in range(kills):
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        size = sum(path.stat().st_size for path in (folder / "journal").glob("*.rows"))
        aim = size + draw.randrange(200, 20_000)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if sum(path.stat().st_size for path in (folder / "journal").glob("*.rows")) >= aim:
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            done += 1
        process.wait()
        if target.exists():
            break
    if not target.exists():
        subprocess.run(list(map(str, command)), check=True, timeout=200, capture_output=True)
    return done, [json.loads(line) for line in target.read_text().splitlines()]


def recorded(folder):
    """Return how many answers all the runs together paid for."""
    journal = Journal(str(folder / "journal"))
    found = journal.stats.found
    journal.close()
    return found


def undisturbed(folder, count):
    folder.mkdir()
    return kill_at_random(folder, count, 0, 0)[1]


def texts(out):
    return Counter((row["prompt"], row["generated_text"], row["error"] is None) for row in out)


@pytest.mark.slow
def test_a_job_killed_three_times_gives_what_one_left_alone_gives(tmp_path):
    check(tmp_path, count=600, kills=3)


@pytest.mark.long
def test_a_job_killed_twenty_times_gives_what_one_left_alone_gives(tmp_path):
    check(tmp_path, count=6000, kills=20)


def check(folder, count, kills):
    (folder / "killed").mkdir()
    killed, out = kill_at_random(folder / "killed", count, kills, seed=7)
    assert killed >= kills // 2
    assert [row["id"] for row in out] == [*range(count)]
    assert texts(out) == texts(undisturbed(folder / "whole", count))
    # What was paid for is what was recorded and what was in flight when it was killed.
    assert recorded(folder / "killed") == count
    assert recorded(folder / "killed") <= 1.02 * count + killed * CONCURRENCY


ROW = st.fixed_dictionaries(
    {
        "prompt": st.sampled_from(["a", "b", "poison", "refused", "hung", "x" * 30_000, None]),
        "sampling_params": st.sampled_from([None, {"max_tokens": 2}, {"max_tokens": 0}, {"n": "many"}, "no json"]),
        "model": st.sampled_from([None, "loud", "nobody"]),
    }
)
FAULTS = [
    {"kind": "crash", "marker": "poison", "rate": 0.7},
    {"kind": "refuse", "marker": "refused", "rate": 0.5},
    {"kind": "hang", "marker": "hung", "rate": 0.5},
]


class Sink:
    """Hold what was written."""

    def __init__(self):
        self.rows = []

    def write(self, row):
        self.rows.append(row)

    def flush(self):
        """Do nothing."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.lists(ROW, max_size=8), max_size=6), seed=st.integers(0, 9), cut=st.integers(0, 40))
def test_nothing_is_lost_and_nothing_doubled(tmp_path_factory, chunks, seed, cut):
    """Whatever fails, of rows, requests and engines; equal rows, empty chunks, and a resume in the middle."""
    import asyncio

    from trunnion import PipelineSpec

    spec = PipelineSpec(engine=engine_spec("sim", config={"faults": FAULTS, "seed": seed, "adapters": ["loud"]}))
    recovery = Recovery(row_retries=1, retry_backoff=0.0, row_timeout=0.3, max_engine_restarts=50)
    whole = [{**row, "id": index} for index, row in enumerate(row for chunk in chunks for row in chunk)]
    folder = tmp_path_factory.mktemp("journal")

    async def run(taken):
        async def chunked():
            for start in range(0, len(taken), 3):
                yield [InputRow(row=row) for row in taken[start : start + 3]]
                yield []

        journal = Journal(str(folder))
        supervisor = Supervisor(spec, recovery)
        sink, dead, account = Sink(), Sink(), Account()
        try:
            await supervisor.start()
            answerer = Answerer(supervisor, spec, journal=journal)
            batch = BatchRun(answerer, RowOptions(), sink, account, concurrency=4, dead_letters=dead)
            await asyncio.wait_for(batch.run(chunked()), 60)
        finally:
            await supervisor.stop()
            journal.close()
        account.balance(batch.n_in)
        assert batch.n_in == len(taken)
        assert [row["id"] for row in sink.rows] == [row["id"] for row in taken]
        for row, source in zip(sink.rows, taken, strict=True):
            assert source.items() <= row.items()
            assert (row["error"] is None) == (row["generated_text"] is not None)
        assert [row["id"] for row in dead.rows] == [row["id"] for row in sink.rows if row["error"]]
        return sink.rows, account

    first, _ = asyncio.run(run(whole[:cut]))
    second, account = asyncio.run(run(whole))
    answered = sum(row["error"] is None for row in first)
    assert account.replayed == answered
    assert Counter(row["generated_text"] for row in first if not row["error"]) <= Counter(
        row["generated_text"] for row in second if not row["error"]
    )
