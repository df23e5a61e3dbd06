"""Say what a batch would do, before an engine is started."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trunnion import get_registry
from trunnion_batch.journal.probe import probe
from trunnion_batch.run import done_behind

from .job_trial import trial
from .starting import size
from .stillness import limits

if TYPE_CHECKING:
    from trunnion import EngineSpec
    from trunnion.rows import RowOptions
    from trunnion_batch.job_file import JobFile
    from trunnion_batch.row_input import RowInput

_SAMPLED: Final = 200
_GUESS: Final = 256
"""Rows in flight that memory is told for where the engine says how many."""
_PER_ROW: Final = 2_000
"""Bytes of a row in flight beside its own values: its request, task and answer's columns."""


def job_plan(
    given: JobFile,
    spec: EngineSpec,
    further: Mapping[str, tuple[EngineSpec, RowOptions]],
    rows: RowInput,
    options: RowOptions,
) -> list[str]:
    """Return lines about a job: engines and what they take, rows, how many are held, and what becomes of failures."""
    sample = [] if rows.name == "-" else list(itertools.islice(itertools.chain.from_iterable(rows.read()), _SAMPLED))
    each = sum(_bytes(item.row) for item in sample) // max(1, len(sample)) + _PER_ROW
    lines = [_rows(given, rows), *trial(given, [item.row for item in sample if item.error is None], options)]
    engines = {"": spec, **{f"{name}: ": engine for name, (engine, _) in further.items()}}
    if given.ray:
        from trunnion_ray.data import build_processor

        from .ray_batch import cpus_taken, processor_config, room_line

        processor = build_processor(processor_config(given, spec, further, options))
        lines += [*processor.explain().splitlines(), room_line(cpus_taken(given, spec, further))]
        lines += [f"engine {one.engine}{_addresses(one)}" for one in engines.values() if _addresses(one)]
        held = processor.config.in_flight * processor.config.batch_size
        lines.append(_memory(each, held, f"a replica has up to {held} rows"))
    else:
        lines += [f"{name}{_engine(one)}" for name, one in engines.items()]
        flight = max(given.concurrency or 0, given.prefix_window or 0)
        if flight:
            lines.append(_memory(each, flight + done_behind(flight), f"{flight} rows in flight"))
        else:
            lines.append("in flight: twice the rows that the engine finds useful, which it tells when it starts")
            held = _GUESS + done_behind(_GUESS)
            lines.append(_memory(each, held, f"a row takes about {size(each)}; with {_GUESS} rows in flight"))
    lines += [_kept(given), limits(given.recovery)]
    for what, uri in (("journal", given.journal), ("cache", given.cache)):
        if uri is not None:
            lines.append(f"{what} {uri}: {probe(uri)}")
    return lines


def _engine(spec: EngineSpec) -> str:
    resources = get_registry().resources(spec)
    asks = [
        f"{sum(getattr(bundle, name) for bundle in resources.bundles):g} {what}"
        for name, what in (("cpu", "CPU"), ("gpu", "GPU"))
        if any(getattr(bundle, name) for bundle in resources.bundles)
    ]
    model = f" with {spec.model}" if spec.model else ""
    return f"engine {spec.engine}{model}: one, in this process, of {' + '.join(asks) or 'no CPU'}{_addresses(spec)}"


def _addresses(spec: EngineSpec) -> str:
    """Return where an engine sends its requests, and in which shares, if its settings have addresses."""
    settings = get_registry().engine(spec.engine).config.model_validate(dict(spec.config))
    given, weights = getattr(settings, "base_url", None), getattr(settings, "weights", None)
    addresses = (given,) if isinstance(given, str) else given or ()
    if weights:
        whole = sum(weights) or 1
        shares = [f"{url} ({weight / whole:.0%})" for url, weight in zip(addresses, weights, strict=True)]
        return f"; it asks {', '.join(shares)}"
    return f"; it asks {', '.join(addresses)}" + (" alike" if len(addresses) > 1 else "") if addresses else ""


def _rows(given: JobFile, rows: RowInput) -> str:
    count = "rows of unknown number" if rows.total is None else f"{rows.total} rows"
    path = Path(rows.name).expanduser()
    taken = f" ({size(path.stat().st_size)})" if path.is_file() else ""
    return f"{count}{taken} of {given.input} -> {given.output}"


def _memory(each: int, held: int, said: str) -> str:
    """Return how much memory the held rows take, each as much as the first ones on average."""
    return f"memory: {said}, {held} held at most: about {size(each * held)} beside the engine"


def _bytes(value: object) -> int:
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(_bytes(item) for item in value.values())
    if isinstance(value, list):
        return sys.getsizeof(value) + sum(map(_bytes, value))
    return sys.getsizeof(value)


def _kept(given: JobFile) -> str:
    failed = "ends the run" if given.on_error == "raise" else "is written with its error"
    if given.on_error != "raise" and given.max_error_rate is not None:
        failed += f", and more than {given.max_error_rate:.0%} of them end the run"
    restarts = given.recovery.max_engine_restarts
    kept = (
        "nothing is kept for a second run (--journal)"
        if given.journal is None
        else f"answers are kept in {given.journal}"
    )
    if given.cache is not None:
        which = "all rows" if given.share == "all" else "rows that are greedy or have a seed"
        kept += f"; {which} share answers through {given.cache}"
    alone = given.recovery.max_unreachable_rows
    ends = "" if alone is None else f"; {alone} rows in a row that fail because it cannot be reached end the run"
    return f"a failed row {failed}; a dead engine is replaced, {restarts} times in a row at most{ends}; {kept}"
