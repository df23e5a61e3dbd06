"""Define what ``run`` and ``run-batch`` take to lose no row and to pay for none twice."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class OnError(StrEnum):
    """Say what becomes of a row that fails."""

    ROW = "row"
    RAISE = "raise"


class ShareAnswers(StrEnum):
    """Say which rows share answers."""

    DETERMINISTIC = "deterministic"
    ALL = "all"


class TaskName(StrEnum):
    """Say what is asked of the model."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"
    SCORE = "score"


JournalOption = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="URI",
        help="Folder, local or of an object store, for finished answers: a run that was stopped or killed goes on "
        "from there when the same command is given again.",
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(
        "--cache", metavar="URI", help="Folder of answers that any later run may use; never used up. See --share."
    ),
]
Deduplicate = Annotated[bool, typer.Option("--deduplicate", help="Ask once for rows that are the same. See --share.")]
Share = Annotated[
    ShareAnswers,
    typer.Option(help="Rows that share answers: those greedy or with a seed, which would come out the same, or all."),
]
DeadLetters = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="A .jsonl or .parquet file for the failed rows with their errors; it can be run again."
    ),
]
MaxErrorRate = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Share of failed rows, of 100 or more, that ends the run."),
]
Retries = Annotated[int | None, typer.Option(min=0, metavar="N", help="Repetitions of a row whose error may pass; 3.")]
OutageTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="SECONDS",
        help="Time that rows wait for an engine that answered before and cannot be reached any more; 300.",
    ),
]
RowTimeout = Annotated[
    float | None, typer.Option(min=0.001, metavar="SECONDS", help="Time that a row may take, repetitions included.")
]
StallTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="SECONDS",
        help="Time without any sign of life after which an engine counts as dead, and is replaced.",
    ),
]
MaxRestarts = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="New engines in a row, without an answered row, before the run ends; 5."),
]
MaxUnreachable = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Rows that fail one after the other because the engine cannot be reached, before the run ends; 100. 0: "
        "never.",
    ),
]
Summary = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Where the account is written, as JSON; by default OUTPUT with .summary.json. '' for none."
    ),
]


def recovery_settings(*, max_unreachable_rows: int | None, **flags: float | None) -> Any:
    """Return the settings of :class:`~trunnion_batch.recovery.Recovery` that were given, by their names there."""
    from trunnion_batch.recovery import Recovery

    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if max_unreachable_rows is not None:
        given["max_unreachable_rows"] = max_unreachable_rows or None
    return Recovery(**given)


def summary_path(given: str | None, output: str) -> Path | None:
    """Return where the account is written: what was given, or beside the output; nowhere for "" and for stdout."""
    if given is not None:
        return Path(given).expanduser() if given else None
    if output == "-":
        return None
    path = Path(output).expanduser()
    return path.with_name(f"{path.stem}.summary.json")
