"""Measure what the framework itself can do in a batch: the simulated engine answers at once, so all else is ours.

    python benches/batch_ceiling.py                       # in process: rows/s of one core, with and without a journal
    python benches/batch_ceiling.py --rate 1000           # the journal's price where the engine gives 1,000 rows/s
    python benches/batch_ceiling.py --rows 1000000 --pairs 1 --name batch-million     # memory over a million rows
    python benches/batch_ceiling.py --profile             # where the time goes

Sides take turns in processes of their own: *plain*, *journal* (a new one), *replay* (the journal of the run before
answers every row). Rows are read from JSON lines and written as JSON lines, 16 tokens each.
Writes benches/results/<name>.json and .md.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stats import paired_ratio

RESULTS = Path(__file__).parent / "results"
SIDES = ("plain", "journal", "replay")
CONCURRENCY = 512


async def batch(source: Path, target: Path, journal_path: Path | None, rate: float) -> dict[str, Any]:
    """Run one batch in this process and return its figures."""
    from trunnion import PipelineSpec, engine_spec
    from trunnion.rows import RowOptions
    from trunnion_batch.account import Account
    from trunnion_batch.answering import Answerer
    from trunnion_batch.journal import Journal
    from trunnion_batch.recovery import Recovery
    from trunnion_batch.row_input import RowInput
    from trunnion_batch.row_output import JsonlOutput
    from trunnion_batch.run import BatchRun
    from trunnion_batch.supervisor import Supervisor

    # Rows in flight times one over their time is what the engine gives.
    config = {"ttft": CONCURRENCY / rate, "max_num_seqs": CONCURRENCY} if rate else {}
    spec = PipelineSpec(engine=engine_spec("sim", config=config))
    journal = None if journal_path is None else Journal(str(journal_path))
    supervisor = Supervisor(spec, Recovery())
    await supervisor.start()
    account = Account()
    output = JsonlOutput(target)
    run = BatchRun(
        Answerer(supervisor, spec, journal=journal),
        RowOptions(sampling={"max_tokens": 16}),
        output,
        account,
        concurrency=CONCURRENCY,
        journals=() if journal is None else (journal,),
    )
    cpu, began = time.process_time(), time.perf_counter()
    await run.run(RowInput(str(source)).chunks())
    seconds = time.perf_counter() - began
    output.commit()
    await supervisor.stop()
    account.balance(run.n_in)
    assert account.ok == run.n_in
    figures = {
        "rows_per_s": run.n_in / seconds,
        "cpu_us_per_row": 1e6 * (time.process_time() - cpu) / run.n_in,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "replayed": account.replayed,
    }
    if journal is not None:
        figures["journal_bytes_per_row"] = journal.stats.bytes / max(1, journal.stats.recorded)
        journal.close()
    return figures


def child(side: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", side, "--folder", str(folder), "--rate", str(args.rate)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_child(args: argparse.Namespace) -> None:
    import uvloop

    folder = Path(args.folder)
    journal = {"plain": None, "journal": folder / "journal", "replay": folder / "journal"}[args.child]
    profile = cProfile.Profile() if args.profile else None
    if profile is not None:
        profile.enable()
    figures = uvloop.run(batch(folder / "in.jsonl", folder / f"{args.child}.jsonl", journal, args.rate))
    if profile is not None:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    print(json.dumps(figures))


def table(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| | rows/s | of plain | CPU us per row | peak RSS, MiB | journal bytes per row |",
        "|---|---|---|---|---|---|",
    ]
    for side, figures in runs.items():

        def middle(key: str, figures: list[dict[str, Any]] = figures) -> str:
            values = [one[key] for one in figures if one.get(key)]
            return f"{statistics.median(values):.0f}" if values else ""

        plain = [one["rows_per_s"] for one in runs["plain"]]
        ratio = str(paired_ratio([one["rows_per_s"] for one in figures], plain)) if side != "plain" else ""
        cells = [side, middle("rows_per_s"), ratio, middle("cpu_us_per_row"), middle("peak_rss_mib")]
        lines.append(f"| {' | '.join(cells)} | {middle('journal_bytes_per_row') if side == 'journal' else ''} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rate", type=float, default=0.0, help="rows/s of the engine; 0: it answers at once")
    parser.add_argument("--name", default="", help="of the result files")
    parser.add_argument("--profile", action="store_true", help="print where the time of a plain run goes, and no more")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_child(args)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "in.jsonl").open("w") as file:
            for number in range(args.rows):
                file.write(json.dumps({"id": number, "prompt": f"Number {number}: which colour is the sky?"}) + "\n")
        if args.profile:
            args.child, args.folder = "plain", name
            run_child(args)
            return
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(args.pairs):
            for side in SIDES:
                if side == "journal":
                    for old in (folder / "journal").glob("*"):
                        old.unlink()
                runs[side].append(child(side, folder, args))
                assert runs[side][-1]["replayed"] == (args.rows if side == "replay" else 0)
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    command = " ".join(["python", "benches/batch_ceiling.py", *sys.argv[1:]])
    lines = ["# The framework's own share of a batch", "", f"`{command}`", "", f"{machine}; {args.rows} rows.", ""]
    lines += table(runs)
    print("\n".join(lines))
    stem = args.name or ("batch-journal" if args.rate else "batch-ceiling")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stem}.json").write_text(
        json.dumps({"command": command, "machine": machine, "runs": runs}, indent=1) + "\n"
    )
    (RESULTS / f"{stem}.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
