"""The virtual clock: fleets of replicas behind a router, traces, summaries, fits."""

import json
import random
import statistics
import time
import tracemalloc
from pathlib import Path

import pytest
from sim_lab import job

import trunnion
from trunnion.errors import InvalidArgument
from trunnion_sim import SimConfig
from trunnion_sim.core import SimCore
from trunnion_sim.fit import MeasuredStep, fit, read_steps
from trunnion_sim.fleet import Fleet
from trunnion_sim.report import Percentiles, summarize
from trunnion_sim.step_time import StepTime
from trunnion_sim.trace import TraceRequest, read_trace

STEP = {"base": 1.0}


def router(name="least_loaded", **config):
    return trunnion.get_registry().build_router(name, config)


def trace(*arrivals, **fields):
    shape = {"prompt_tokens": 8, "output_tokens": 3, **fields}
    return [TraceRequest(arrival=at, **shape) for at in arrivals]


def play(requests, *, replicas=1, name="least_loaded", router_config=None, **config):
    return Fleet(SimConfig(**config), router(name, **(router_config or {})), replicas=replicas).run(requests)


def test_times_are_measured_from_the_arrival():
    first, second = play(trace(0.0, 0.0), step=STEP, max_num_seqs=1)
    assert (first.status, first.replica) == ("ok", 0)
    assert (first.queued, first.ttft, first.tpot, first.latency) == (0.0, 1.0, 1.0, 3.0)
    assert (second.queued, second.ttft, second.latency) == (3.0, 4.0, 6.0)


def test_the_router_spreads_the_load():
    outcomes = play(trace(0.0, 0.1, 0.2, 0.3), step=STEP, replicas=4)
    assert sorted(one.replica for one in outcomes) == [0, 1, 2, 3]


def test_affinity_keeps_a_group_where_its_prefix_is():
    requests = [
        TraceRequest(arrival=5.0 * n, prompt_tokens=64, output_tokens=1, group="ab"[n % 2], group_tokens=48)
        for n in range(8)
    ]
    config = {"step": STEP, "replicas": 2, "block_size": 16}
    kept = play(requests, name="affinity", router_config={"prefix_block": 16}, **config)
    assert len({one.replica for one in kept[::2]}) == 1
    assert [one.cached_tokens for one in kept] == [0, 0, *([48] * 6)]
    assert {one.cached_tokens for one in play(requests, enable_prefix_caching=False, **config)} == {0}
    whole = play(
        [TraceRequest(arrival=9.0 * n, prompt_tokens=64, output_tokens=1, group="a") for n in (0, 1)], **config
    )
    assert whole[1].cached_tokens == 48  # all of it is shared, and the last token is computed anew


def test_adapters_sessions_and_priorities_are_passed_on():
    requests = [
        TraceRequest(arrival=0.0, prompt_tokens=1, output_tokens=1),
        TraceRequest(arrival=0.5, prompt_tokens=1, output_tokens=1, adapter="a"),
        TraceRequest(arrival=0.5, prompt_tokens=1, output_tokens=1, priority=1),
        TraceRequest(arrival=0.5, prompt_tokens=1, output_tokens=1, priority=-1),
    ]
    outcomes = play(requests, step=STEP, max_num_seqs=1, lora_load_seconds=10.0)
    assert [one.latency for one in outcomes] == [1.0, 12.5, 2.5, 1.5]  # it loads from when its turn comes
    sessions = [TraceRequest(arrival=float(n), prompt_tokens=1, output_tokens=5, session="s") for n in range(3)]
    assert len({one.replica for one in play(sessions, step=STEP, replicas=3, name="affinity")}) == 1


def test_stale_reports_are_what_the_router_sees():
    class Watching:
        def __init__(self):
            self.seen = []

        def rank(self, request, candidates):
            self.seen.append((candidates[0].load.running, candidates[0].load_age, candidates[0].in_flight))
            return trunnion.Ranking(groups=(trunnion.RankedGroup(candidates=tuple(candidates), reason=""),))

        def routed(self, request, candidate): ...

        def completed(self, request, candidate, *, ok): ...

        def replicas_changed(self, candidates): ...

    watching = Watching()
    Fleet(SimConfig(step=STEP, load_report_interval=4.0), watching).run(trace(0.5, 3.5, 4.5, output_tokens=20))
    assert [(running, in_flight) for running, _, in_flight in watching.seen] == [(0, 0), (0, 1), (2, 2)]
    assert watching.seen[2][1] <= 4.0


def test_faults_strike_the_fleet():
    faults = [{"kind": "refuse", "requests": [0]}, {"kind": "die", "requests": [1]}, {"kind": "hang", "requests": [2]}]
    outcomes = play(trace(0.0, 0.0, 0.0, 0.0), step=STEP, faults=faults)
    assert [one.status for one in outcomes] == ["refused", "failed", "unfinished", "ok"]
    crashed = play(trace(0.0, 0.5, 9.0, 9.5), step=STEP, replicas=2, faults=[{"kind": "crash", "requests": [1]}])
    assert [one.status for one in crashed] == ["ok", "failed", "ok", "ok"]
    assert {one.replica for one in crashed[2:]} == {crashed[0].replica}  # the other one is gone
    nobody = play(trace(0.0, 9.0), step=STEP, faults=[{"kind": "crash_node", "at": 1.5}])
    assert [one.status for one in nobody] == ["failed", "refused"]
    full = play(trace(0.0, 0.1, 0.2), step=STEP, max_num_seqs=1, max_waiting=1)
    assert [one.status for one in full] == ["ok", "ok", "refused"]


def test_a_thousand_replicas_fit_in_one_process():
    source = random.Random(0)
    requests = [
        TraceRequest(arrival=0.002 * n, prompt_tokens=source.randint(10, 500), output_tokens=source.randint(10, 300))
        for n in range(3000)
    ]
    tracemalloc.start()
    began = time.process_time()
    outcomes = play(requests, preset="l4-8b", replicas=1000)
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {one.status for one in outcomes} == {"ok"}
    assert len({one.replica for one in outcomes}) == 1000
    assert peak < 300 * 2**20
    assert seconds < 120  # bounded by what a busy machine needs, not measured here


def test_an_hour_passes_in_few_steps():
    requests = trace(*(2.0 * n for n in range(1800)), prompt_tokens=500, output_tokens=300)
    fleet = Fleet(SimConfig(preset="a100-8b"), router())
    summary = summarize(fleet.run(requests), replicas=1)
    assert summary.seconds > 3590
    assert fleet._replicas[0].core.ranks[0].steps < 20_000  # half a million tokens


def test_the_same_trace_gives_the_same_outcomes():
    source = random.Random(1)
    requests = trace(*sorted(source.uniform(0, 60) for _ in range(200)), prompt_tokens=100, output_tokens=50)

    def outcomes():
        made = play(requests, preset="l4-8b", replicas=3, name="power_of_two", router_config={"seed": 1})
        return [(one.replica, one.ttft, one.latency) for one in made]

    assert outcomes() == outcomes()


# --- traces


def test_a_trace_is_read(tmp_path):
    file = tmp_path / "trace.jsonl"
    lines = [
        {"arrival": 0, "prompt_tokens": 3, "output_tokens": 2}, {"arrival": 1.5, "prompt_tokens": 3,
             "output_tokens": 2, "group": "g", "group_tokens": 2, "adapter": "a", "priority": 1, "session": "s"},
    ]  # fmt: skip
    file.write_text("\n\n".join(map(json.dumps, lines)))
    assert [one.model_dump(exclude_unset=True) for one in read_trace(file)] == lines


BACKWARDS = "\n".join(json.dumps({"arrival": at, "prompt_tokens": 1, "output_tokens": 1}) for at in (1, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no requests"),
        ("{", "line 1 is no JSON object"),
        ("3", "line 1 is no JSON object"),
        ('{"arrival": 0, "prompt_tokens": 0, "output_tokens": 1}', "line 1: prompt_tokens"),
        ('{"arrival": 0, "prompt_tokens": 1, "output_tokens": 1, "x": 1}', "line 1: a request has no 'x'; keys: arr"),
        ('{"arrival": 0, "prompt_tokns": 1, "output_tokens": 1}', "no 'prompt_tokns'; did you mean 'prompt_tokens'"),
        ('{"arrival": 0, "prompt_tokens": 1, "output_tokens": 1, "sesion": "a"}', "'sesion'; did you mean 'session'"),
        (BACKWARDS, "line 2: arrival 0"),
    ],
)  # fmt: skip
def test_a_wrong_trace_is_refused_by_its_line(tmp_path, text, message):
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        read_trace(file)


# --- summaries


def test_percentiles_are_by_nearest_rank():
    assert Percentiles.of([float(n) for n in range(1, 101)]) == Percentiles(p50=50.0, p90=90.0, p99=99.0)
    assert Percentiles.of([None, 7.0]) == Percentiles(p50=7.0, p90=7.0, p99=7.0)
    assert Percentiles.of([]) == Percentiles(p50=None, p90=None, p99=None)


def test_a_summary_counts_what_was_done():
    config = {"step": STEP, "max_num_seqs": 1, "max_waiting": 0}
    summary = summarize(play(trace(1.0, 1.5, 5.0), **config), replicas=1)
    assert summary.requests == {"ok": 2, "refused": 1}
    assert (summary.seconds, summary.requests_per_s, summary.output_tokens_per_s) == (7.0, 2 / 7, 6 / 7)
    assert (summary.prompt_tokens_per_s, summary.busiest, summary.idlest) == (16 / 7, 2, 2)
    assert summary.to_json()["ttft"]["p50"] == 1.0


# --- fits


def measured(step, shapes, noise=0.0):
    source = random.Random(0)
    return [
        MeasuredStep(
            decodes=d, context=c, prefill=p, seconds=step.seconds(d, c, p) * (1 + source.uniform(-noise, noise))
        )
        for d, c, p in shapes
    ]


SHAPES = [(b, b * c, 0) for b in (1, 4, 16, 64) for c in (16, 256, 1024)] + [(0, p, p) for p in (16, 256, 1024)]


def test_a_fit_finds_the_times_again():
    step = StepTime(base=0.003, per_sequence=2e-4, per_context_token=3e-7, per_prompt_token=5e-5)
    made = fit(measured(step, SHAPES))
    assert made.step.model_dump() == pytest.approx(step.model_dump(), rel=1e-3)
    assert made.worst_error < 1e-3
    noisy = fit(measured(step, SHAPES, noise=0.1))
    assert noisy.step.base == pytest.approx(0.003, rel=0.2)
    assert 0.01 < noisy.median_error <= noisy.p90_error <= noisy.worst_error < 0.15


def test_a_fit_has_no_time_below_zero():
    steps = [MeasuredStep(decodes=b, context=b * 100, seconds=0.01 - b * 1e-5) for b in (1, 2, 4, 8, 16)]
    made = fit(steps).step
    assert min(made.model_dump().values()) == 0.0
    assert made.base == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "steps"),
        ('{"steps": [{"decodes": 1}]}', "a step is wrong: context"),
        ('{"steps": [{"decodes": 1, "context": 1, "seconds": 1}]}', "too few"),
    ],
)
def test_wrong_measurements_are_refused(tmp_path, text, message):
    file = tmp_path / "steps.json"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        fit(read_steps(file))


# --- the measured preset

RESULTS = Path(__file__).parents[2] / "benches" / "results" / "sim-steps-cpu.json"


def closed_loop(config, *, concurrency, requests, prompt_tokens, output_tokens):
    """Keep so many requests in flight; returns tokens per second, and the medians of TTFT and TPOT."""
    core, jobs = SimCore(config), []

    def ask(now):
        jobs.append(job(prompt=prompt_tokens, output=output_tokens, chunk=output_tokens))
        core.add(jobs[-1], now)

    for _ in range(concurrency):
        ask(0.0)
    while core.due is not None:
        for event in core.step(core.due):
            if event.kind == "finished" and len(jobs) < requests:
                ask(event.time)
    rate = requests * output_tokens / max(one.ended for one in jobs)
    ttft = statistics.median(one.first_token - one.arrived for one in jobs)
    tpot = statistics.median((one.ended - one.first_token) / (output_tokens - 1) for one in jobs)
    return rate, ttft, tpot


def test_the_preset_is_the_fit_of_what_was_measured():
    made = fit(read_steps(RESULTS))
    assert SimConfig(preset="vllm-cpu-2core").step == made.step
    assert made.median_error < 0.15
    assert made.worst_error < 0.5


def test_the_preset_runs_another_load_as_the_machine_did():
    """A closed loop, which the steps were not measured on: simulated time against measured time, none of it live."""
    run = json.loads(RESULTS.read_text(encoding="utf-8"))["run"]
    load = {name: run[name] for name in ("concurrency", "requests", "prompt_tokens", "output_tokens")}
    rate, ttft, tpot = closed_loop(SimConfig(preset="vllm-cpu-2core"), **load)
    assert 0.7 < rate / run["output_tokens_per_s"] < 1.4
    assert 0.7 < tpot / run["tpot_p50"] < 1.4
    assert 0.5 < ttft / run["ttft_p50"] < 2
