"""``trunnion sim``: traces, fits and presets on the command line."""

import json

import pytest

TRACE = [{"arrival": 0.5 * n, "prompt_tokens": 50, "output_tokens": 10, "group": "g"} for n in range(8)]


@pytest.fixture
def trace(cli):
    path = cli.folder / "trace.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in TRACE))
    return str(path)


def test_a_trace_is_replayed(cli, trace):
    result = cli.run("sim", "run", trace, "--set", "step.base=0.01")
    assert result.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines() if line.strip()}
    assert rows["TTFT"] == ["0.01", "0.01", "0.01"]
    assert rows["requests"] == ["8", "ok"]


def test_every_option_has_an_effect(cli, trace):
    def summary(*options):
        return json.loads(cli.run("sim", "run", trace, "--json", *options).out)

    one = summary("--preset", "l4-70b")
    assert one["ttft"]["p50"] > 0.05
    assert one["busiest"] == 8
    two = summary("--preset", "l4-70b", "--replicas", "2")
    assert two["busiest"] < 8
    near = summary("--preset", "l4-70b", "--replicas", "2", "--router", "affinity", "--router-set", "prefix_block=16")
    assert near["cache_hit_rate"] >= two["cache_hit_rate"]
    assert (
        summary("--preset", "l4-70b", "--set", "enable_prefix_caching=false")["cache_hit_rate"]
        == 0
        < one["cache_hit_rate"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing.jsonl"], "No such file"),
        (["run", "{trace}", "--router", "nobody"], "nobody"),
        (["run", "{trace}", "--preset", "nobody"], "h100-8b"),
        (["run", "{trace}", "--set", "step.bases=1"], "bases"),
        (["fit", "{trace}"], "steps"),
    ],
)
def test_mistakes_are_told_in_a_line(cli, trace, arguments, message):
    result = cli.run("sim", *(argument.format(trace=trace) for argument in arguments))
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_times_are_fitted(cli):
    steps = [
        {"decodes": b, "context": b * c, "prefill": p, "seconds": 0.01 + b * 1e-3 + b * c * 1e-6 + p * 1e-4}
        for b, c, p in ((1, 16, 0), (8, 16, 0), (8, 900, 0), (1, 900, 0), (1, 16, 100), (1, 100, 900))
    ]
    (cli.folder / "steps.json").write_text(json.dumps({"steps": steps}))
    lines = cli.run("sim", "fit", "steps.json").out.splitlines()
    assert lines[:2] == ["--set step.base=0.01", "--set step.per_sequence=0.001"]
    assert lines[-1].startswith("error over 6 steps: median 0.0%")
    made = json.loads(cli.run("sim", "fit", "steps.json", "--json").out)
    assert made["step"]["per_prompt_token"] == pytest.approx(1e-4)


def test_presets_are_listed(cli):
    assert "h100-70b" in cli.run("sim", "presets").out
    assert json.loads(cli.run("sim", "presets", "--json").out)["h100-8b"]["step"]["base"] > 0
