"""Check the files of a job before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trunnion_batch.places import Place, check_apart, check_summary
from trunnion_batch.row_output import check_output, partial_path

from .batch_options import summary_path

if TYPE_CHECKING:
    from trunnion_batch.job_file import JobFile


def check_files(given: JobFile, *, overwrite: bool) -> Path | None:
    """Return where the account is written to, after every file was found to be writable, and a place of its own.

    Raises:
        ConfigError: A file cannot be written or would be lost, or two are the same.
    """
    check_output(given.output, source=given.input, overwrite=overwrite)
    if given.dead_letters is not None:
        check_output(given.dead_letters, source=given.input, overwrite=overwrite, what="--dead-letters", stdout=False)
    summary = summary_path(given.summary, given.output)
    places: list[Place] = [
        ("INPUT", given.input),
        ("OUTPUT", given.output),
        ("--dead-letters", given.dead_letters),
        ("--summary", summary),
        ("--journal", given.journal),
        ("--cache", given.cache),
    ]
    for what, name in places[1:3]:
        if name not in (None, "-"):
            kept = f"what an unfinished run keeps of {what}"
            places += [(kept, partial_path(Path(str(name)).expanduser(), lines=lines)) for lines in (False, True)]
    check_apart(places)
    check_summary(summary, overwrite=overwrite)
    return summary
