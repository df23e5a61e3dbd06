"""Try a job's columns and templates on its first rows, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from trunnion.errors import ConfigError, InvalidArgument
from trunnion.row_tasks import TASK_COLUMNS
from trunnion_batch.templates import RowTemplate

if TYPE_CHECKING:
    from trunnion.rows import RowOptions
    from trunnion_batch.job_file import JobFile

_TRIED: Final = 20
_ASKED: Final = {"score": (("query",), ("texts",))}
"""What a row must bring, by the task: one of each group."""
_PROMPTS: Final = (("messages", "prompt", "prompt_token_ids"),)
_COUNTS: Final = ("num_input_tokens", "num_generated_tokens")
_LISTS: Final = ("generated_tokens", "embedding", "label_names", "label_probabilities", "scores")
_USAGE: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")


def trial(given: JobFile, sample: Sequence[Mapping[str, Any]], options: RowOptions) -> Iterator[str]:
    """Yield lines about what the first rows lack, but not each time.

    Raises:
        ConfigError: All of them lack what they need, so that no row would be answered; ``param`` says what.
    """
    rows = [dict(row) for row in sample[:_TRIED]]
    if not rows:
        return
    if given.preprocess:
        template = RowTemplate(given.preprocess)
        rows = yield from _tried("preprocess", lambda row: {**row, **template(row)}, rows)
    yield from _columns(given, rows, options)
    if given.postprocess:
        output = _made_up(given)
        last = RowTemplate(given.postprocess, where="postprocess")
        yield from _tried("postprocess", lambda row: last({**row, **output}), rows)


def _tried(
    where: str, template: Callable[[dict[str, Any]], dict[str, Any]], rows: list[dict[str, Any]]
) -> Generator[str, None, list[dict[str, Any]]]:
    """Return the rows that a template made, and yield a line if it failed on some; raise if it failed on all."""
    made: list[dict[str, Any]] = []
    failures: list[InvalidArgument] = []
    for row in rows:
        try:
            made.append(template(row))
        except InvalidArgument as error:
            failures.append(error)
    if failures and not made:
        first = failures[0]
        raise ConfigError(f"{first} (so it is with each of the first {len(rows)} rows)", param=first.param)
    if failures:
        yield f"{where} fails for {len(failures)} of the first {len(rows)} rows: {failures[0]}"
    return made


def _columns(given: JobFile, rows: list[dict[str, Any]], options: RowOptions) -> Iterator[str]:
    there = {name for row in rows for name, value in row.items() if value is not None}
    has = f"they have {', '.join(sorted({name for row in rows for name in row})) or 'none'}"
    for group in _ASKED.get(given.task, _PROMPTS):
        names = [name for field in group if (name := getattr(options.columns, field))]
        if not there.intersection(names):
            raise ConfigError(
                f"none of the first {len(rows)} rows has a column {' or '.join(names)}, so they would all fail; {has}; "
                f"name the right one (--prompt-column, --messages-column, `columns`) or make it (`preprocess`)",
                param=f"columns.{group[0]}",
            )
    for field, name in given.columns.items():
        if name and name != field and name not in there:
            yield f"none of the first {len(rows)} rows has the column {name} (columns.{field}); {has}"


def _made_up(given: JobFile) -> dict[str, Any]:
    """Return output columns as an answered row might have them."""
    made: dict[str, Any] = dict.fromkeys(TASK_COLUMNS[given.task], "text")
    made |= {name: 1 for name in _COUNTS if name in made} | {name: [1] for name in _LISTS if name in made}
    return {**made, "usage": dict.fromkeys(_USAGE, 1), "error": None}
