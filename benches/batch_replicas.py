"""Measure whether two replicas of a batch do twice as much as one: the simulated engine, on Ray Data.

The engine answers 32 rows at once, each after a fifth of a second, and needs next to no CPU: what is lost is lost in
handing rows out. Rows/s from the moment a tenth of the rows is done until nine tenths are; one and two replicas take
turns.

    python benches/batch_replicas.py [--pairs 5] [--rows 4000] [--name batch-replicas]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import ray

from stats import paired_ratio
from trunnion_batch.account import Account
from trunnion_ray.data import ProcessorConfig, build_processor

RESULTS: Final = Path(__file__).parent / "results"
ENGINE: Final = {"ttft": 0.05, "tpot": 0.01, "max_num_seqs": 32}
TOKENS: Final = 16


def rows_per_s(replicas: int, rows: int) -> float:
    """Run a job and return the rows/s of its middle."""
    config = ProcessorConfig(
        engine="sim",
        config=ENGINE,
        sampling={"max_tokens": TOKENS, "ignore_eos": True},
        concurrency=replicas,
        batch_size=64,
    )
    marks: dict[str, float] = {}

    def watched(account: Account) -> None:
        if account.rows == rows // 10:
            marks["first"] = time.perf_counter()
        elif account.rows == rows - rows // 10:
            marks["last"] = time.perf_counter()

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": f"number {row['id']}"}

    with tempfile.TemporaryDirectory() as folder:
        dataset = ray.data.range(rows, override_num_blocks=rows // 64)
        build_processor(config, ask).run(dataset, f"{folder}/out.jsonl", watched=watched)
    return (rows - 2 * (rows // 10)) / (marks["last"] - marks["first"])


def main() -> None:
    """Measure, print, and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4000, help="of one replica; two get twice as many")
    parser.add_argument("--name", default="batch-replicas")
    arguments = parser.parse_args()
    load = os.getloadavg()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    pairs = []
    for _ in range(arguments.pairs):
        pairs.append([rows_per_s(replicas, arguments.rows * replicas) for replicas in (1, 2)])
        print([round(rate, 1) for rate in pairs[-1]], flush=True)
    ones, twos = zip(*pairs, strict=True)
    made = {
        "command": f"python benches/batch_replicas.py --pairs {arguments.pairs} --rows {arguments.rows}",
        "cpus": os.cpu_count(),
        "load_before": [round(one, 1) for one in load],
        "engine": ENGINE,
        "could_be_rows_per_s": 32 / (ENGINE["ttft"] + (TOKENS - 1) * ENGINE["tpot"]),
        "one_replica_rows_per_s": round(statistics.median(ones), 1),
        "two_replicas_rows_per_s": round(statistics.median(twos), 1),
        "two_to_one": str(paired_ratio(list(twos), list(ones))),
    }
    text = json.dumps(made, indent=1) + "\n"
    print(text)
    (RESULTS / f"{arguments.name}.json").write_text(text)


if __name__ == "__main__":
    main()
