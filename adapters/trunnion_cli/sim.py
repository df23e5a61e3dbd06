"""Plan on the simulated engine: replay traces, fit step times to what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .assignments import parse_assignments
from .options import Debug, Settings, registry
from .plugins import table

if TYPE_CHECKING:
    from trunnion_sim.report import Percentiles, Summary

app = typer.Typer(help="Simulate: replay a trace on replicas of an engine, or fit step times.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("run")
def run_trace(
    trace: Annotated[Path, typer.Argument(help="JSONL of arrival, prompt_tokens, output_tokens; see docs/sim.md.")],
    *,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas behind the router.")] = 1,
    router: Annotated[str, typer.Option(metavar="NAME", help="Router plugin.")] = "least_loaded",
    router_setting: Annotated[
        list[str] | None, typer.Option("--router-set", metavar="KEY=VALUE", help="Setting of the router, repeatable.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Known machine to start from; see `trunnion sim presets`.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Replay a trace on a virtual clock and print times and throughput."""
    from trunnion_sim.config import SimConfig
    from trunnion_sim.fleet import Fleet
    from trunnion_sim.report import summarize
    from trunnion_sim.trace import read_trace

    found = registry()
    given: dict[str, Any] = parse_assignments("--set", settings or ())
    if preset is not None:
        given["preset"] = preset
    spec = found.engine_spec("sim", None, given)
    chosen = found.build_router(router, parse_assignments("--router-set", router_setting or ()))
    outcomes = Fleet(SimConfig(**spec.config), chosen, replicas=replicas).run(read_trace(trace))
    summary = summarize(outcomes, replicas=replicas)
    if as_json:
        typer.echo(json.dumps(summary.to_json(), indent=2))
        return
    table(_times(summary))
    table(_figures(summary, replicas))


def _times(summary: Summary) -> list[dict[str, Any]]:
    rows: list[tuple[str, Percentiles]] = [
        ("TTFT", summary.ttft),
        ("TPOT", summary.tpot),
        ("latency", summary.latency),
        ("queued", summary.queued),
    ]
    return [{"seconds": name, **{key: _number(value) for key, value in asdict(row).items()}} for name, row in rows]


def _figures(summary: Summary, replicas: int) -> list[dict[str, Any]]:
    counts = ", ".join(f"{count} {status}" for status, count in summary.requests.items())
    figures = [
        ("requests", counts),
        ("seconds", _number(summary.seconds)),
        ("requests/s", _number(summary.requests_per_s)),
        ("output tokens/s", _number(summary.output_tokens_per_s)),
        ("prompt tokens/s", _number(summary.prompt_tokens_per_s)),
        ("prompt tokens cached", f"{summary.cache_hit_rate:.1%}"),
        ("preemptions", str(summary.preemptions)),
    ]
    if replicas > 1:
        figures.append(("requests of a replica", f"{summary.idlest} to {summary.busiest}"))
    return [{"figure": name, "value": value} for name, value in figures]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


@app.command("fit")
def fit_steps(
    results: Annotated[Path, typer.Argument(help="JSON with measured steps, as benches/sim_steps.py writes it.")],
    *,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Fit the times of a step to a measured run, and say how far off they are."""
    from trunnion_sim.fit import fit, read_steps

    made = fit(read_steps(results))
    step = made.step.model_dump()
    if as_json:
        errors = {"median": made.median_error, "p90": made.p90_error, "worst": made.worst_error}
        typer.echo(json.dumps({"step": step, "steps": made.steps, "error": errors}, indent=2))
        return
    for name, value in step.items():
        typer.echo(f"--set step.{name}={value:g}")
    typer.echo(
        f"error over {made.steps} steps: median {made.median_error:.1%}, p90 {made.p90_error:.1%}, "
        f"worst {made.worst_error:.1%}"
    )


@app.command("presets")
def list_presets(
    *,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """List the known machines, and how their settings came about."""
    from trunnion_sim.presets import MEASURED, PRESETS

    if as_json:
        typer.echo(json.dumps(PRESETS, indent=2))
        return
    table(
        [
            {
                "preset": name,
                "from": "measured" if name in MEASURED else "derived",
                "GPUs": settings.get("tensor_parallel_size", 1) if name not in MEASURED else 0,
                "KV blocks": settings.get("num_gpu_blocks_override", ""),
                **{f"step.{key}": f"{value:g}" for key, value in settings["step"].items()},
            }
            for name, settings in sorted(PRESETS.items())
        ]
    )
