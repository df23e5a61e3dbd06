"""Show how a batch comes along: a bar on a terminal, else a plain line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any, Final, Self

from .console import say

_SECONDS: Final = 10.0


class Progress:
    """Count rows and tokens, and show them on stderr. A context manager."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.rows = 0
        self.ok = 0
        self.failed = 0
        self.tokens = 0
        self.codes: Counter[str] = Counter()
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Start the clock, and the bar if somebody watches."""
        self._began = self._said = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("rows  {task.fields[speed]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("", total=self.total, speed="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    def count(self, columns: dict[str, Any]) -> None:
        """Count one row by its output columns."""
        self.rows += 1
        error = columns.get("error")
        if error is None:
            self.ok += 1
            self.tokens += columns.get("num_generated_tokens") or 0
        else:
            self.failed += 1
            self.codes[error["code"]] += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self.rows, speed=self._speed())
        elif time.monotonic() - self._said >= _SECONDS:
            self._said = time.monotonic()
            of = "" if self.total is None else f" of {self.total}"
            failed = f", {self.failed} failed" if self.failed else ""
            say(f"{self.rows}{of} rows{failed}, {self._speed()}")

    def _speed(self) -> str:
        seconds = max(self.seconds, 1e-6)
        return f"{self.rows / seconds:.1f} rows/s, {self.tokens / seconds:.0f} tokens/s"

    def summary(self, n_in: int) -> str:
        """Return the account of the whole run. Every row that came in went out, as an answer or as an error."""
        assert n_in == self.ok + self.failed, f"{n_in} rows in, but {self.ok} ok and {self.failed} failed"
        codes = ", ".join(f"{count} {code}" for code, count in self.codes.most_common())
        why = f" ({codes})" if codes else ""
        return (
            f"{n_in} rows in = {self.ok} ok + {self.failed} failed{why}; "
            f"{self.tokens} tokens in {self.seconds:.1f} s, {self._speed()}"
        )
