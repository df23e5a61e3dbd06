"""Make a batch's output and error files of what its owners wrote. Everything here blocks; call it in a thread."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .check import numbered_lines
from .disk import new_id
from .files import PREFIX, FileStore
from .lines import fingerprint, parse_line, undone_line
from .results import UNDONE, Kind, Results, adopt
from .state import Ending, State

_MANY: Final = 5000
"""Lines that are held before they are written: each write waits for the disk."""
_WHY: Final = {
    "expired": "This request could not be executed before the completion window expired.",
    "cancelled": "This request was not executed before the batch was cancelled.",
}


def adopt_own(folder: Path, number: int, state: State) -> set[int]:
    """Count all that was written, this owner's lines included; return the fingerprints of what is done."""
    done = adopt(folder, number + 1, state)
    for name in [name for name in state.adopted if name.endswith(f"-{number}.jsonl")]:
        del state.adopted[name]  # these may still grow, and count whole
    return done


def write_undone(source: Path, results: Results, state: State, done: set[int], ending: Ending) -> None:
    """Write an error line for each line that was never answered."""
    for chunk in numbered_lines(source):
        for number, data in chunk:
            line = parse_line(data, number, (state.endpoint,))
            if fingerprint(line.custom_id) not in done:
                results.add("errors", undone_line(number, line.custom_id, UNDONE[ending], _WHY[ending]))
        if results.waiting > _MANY:
            results.flush()
    results.flush()


def publish_results(files: FileStore, results: Results, state: State, retention: float | None) -> None:
    """Make the two files, under the ids that the state names; one without lines is left out."""
    seconds = state.output_seconds or retention

    def publish(kind: Kind, name: str, file_id: str | None) -> str | None:
        made = files.add_joined(
            results.pieces(kind, state),
            filename=f"{state.id}_{name}.jsonl",
            purpose="batch_output",
            seconds=seconds,
            file_id=file_id or new_id(PREFIX),
        )
        return None if made is None else made.id

    state.output_file_id = publish("results", "output", state.output_file_id)
    state.error_file_id = publish("errors", "error", state.error_file_id)
