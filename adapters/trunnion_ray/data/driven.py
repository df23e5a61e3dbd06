"""Run a job to its end from here: rows stream through the driver into a file, and the account is drawn up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ray
from ray.data import Dataset

from trunnion.errors import ConfigError, TrunnionError
from trunnion.row_tasks import dead_letter
from trunnion_batch.account import Account
from trunnion_batch.places import check_apart, check_summary
from trunnion_batch.row_output import RowOutput, check_output, open_output

from .block_count import Seen
from .failures import find_error

if TYPE_CHECKING:
    from .processor import Processor

_SEEN_SECONDS: Final = 2.0
Watched = Callable[[Account], None]


def run_job(
    processor: Processor,
    dataset: Dataset,
    output: str,
    *,
    dead_letters: str | None = None,
    summary: str | None = None,
    overwrite: bool = False,
    watched: Watched | None = None,
) -> dict[str, Any]:
    """See :meth:`~.processor.Processor.run`."""
    folder = output.endswith("/") or "://" in output
    if folder and dead_letters is not None:
        raise ConfigError("dead_letters go with one output file; read the folder's failed rows", param="dead_letters")
    for name, what in ((None if folder else output, "output"), (dead_letters, "dead_letters")):
        if name is not None:
            check_output(name, source="-", overwrite=overwrite, what=what, stdout=False)
    check_apart([
        ("output", output), ("dead_letters", dead_letters), ("summary", summary),
        ("journal", processor.config.journal), ("cache", processor.config.cache),
    ])  # fmt: skip
    if summary is not None:
        check_summary(Path(summary).expanduser(), overwrite=overwrite, what="summary")
    job = processor.begin(dataset)
    try:
        if folder:
            job.dataset.write_parquet(output, mode="overwrite" if overwrite else "append")
            made = job.account()
        else:
            files = [name for name in (output, dead_letters) if name is not None]
            sinks = [open_output(name, None, None, processor.config.task, overwrite=overwrite) for name in files]
            ordered = job.dataset.context.execution_options.preserve_order
            account = _through_driver(job.dataset, sinks, processor, watched, ordered=ordered)
            made = balanced(job.account(), account)
    except Exception as error:
        ours = find_error(error)
        if summary is not None:
            _write(summary, {**job.account(), "partial": True})
        if ours is None:
            raise
        raise ours from error
    finally:
        job.close()
    if summary is not None:
        _write(summary, made)
    return made


def _through_driver(
    dataset: Dataset, sinks: list[RowOutput], processor: Processor, watched: Watched | None, *, ordered: bool = False
) -> Account:
    """Write the rows to the first file, and those that failed to the second if there is one.

    ``ordered``: rows come out in the order of the input, so that their places tell which ones they are.
    """
    account = Account()
    task, error = processor.config.task, processor.job.dialect.error
    dead = sinks[1] if len(sinks) > 1 else None
    try:
        for row in rows_of(dataset):
            sinks[0].write(row)
            failed = row.get(error)
            if failed and dead is not None:
                # Ray's names of outputs are names of inputs as well: such a row stays whole.
                dead.write(dead_letter(row, task) if error == "error" else row)
            account.add({**row, "error": failed or None}, number=None if ordered else 0)
            if watched is not None:
                watched(account)
    except BaseException:
        for sink in sinks:
            sink.abandon()
        raise
    for sink in sinks:
        sink.commit()
    for sink in sinks:
        if sink.displaced is not None:
            message = f"{sink.displaced} was made by another run meanwhile and is left as it is: the rows are in"
            raise ConfigError(f"{message} {sink.path}", param="output")
    return account


def rows_of(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield rows as plain Python values, a block at a time."""
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from table.to_pylist()


def balanced(counted: dict[str, Any], account: Account) -> dict[str, Any]:
    """Return a job's account, after the rows that came out were held against those that went in.

    Postprocess may run behind the replicas, so what became of a row is told by the rows themselves.

    Raises:
        AssertionError: A row was lost or doubled.
    """
    account.take(counted)
    account.balance(counted["rows_in"])
    return {**counted, **account.summary(counted["rows_in"])}


def _write(path: str, values: Mapping[str, Any]) -> None:
    Path(path).expanduser().write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


class Begun:
    """Hold a job that was begun: its lazy dataset, and the desk that counts its blocks."""

    def __init__(self, dataset: Dataset, desk: Any, rows: int | None) -> None:
        self.dataset = dataset
        self._desk = desk
        self._rows = rows
        self._last: dict[str, Any] | None = None

    def seen(self) -> Seen:
        """Return how far the job has come, also with rows that wait for others before them. Waits two seconds."""
        seen: Seen = ray.get(self._desk.seen.remote(), timeout=_SEEN_SECONDS)
        return seen

    def account(self) -> dict[str, Any]:
        """Return the account so far. ``partial``: whether rows are missing; None where the input's size is unknown."""
        if self._last is None:
            try:
                made: dict[str, Any] = ray.get(self._desk.account.remote())
            except TrunnionError:
                raise
            except Exception as error:
                raise find_error(error) or error from error
            made["partial"] = None if self._rows is None else made["rows_in"] < self._rows
            return made
        return self._last

    def close(self) -> None:
        """Bring the journal to safety; the last account stays."""
        if self._last is None:
            self._last = self.account()
            ray.get(self._desk.close.remote())
