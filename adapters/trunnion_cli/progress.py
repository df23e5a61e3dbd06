"""Show how a batch comes along: a live line on a terminal, else a plain one every ten seconds; then a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from .console import say
from .stillness import Stillness, limits

if TYPE_CHECKING:
    from trunnion_batch.account import Account
    from trunnion_batch.recovery import Recovery

_SECONDS: Final = 10.0
_WIDTH: Final = 100


class Progress:
    """Show an account on stderr while it grows. A context manager."""

    def __init__(self, total: int | None, account: Account, recovery: Recovery | None = None) -> None:
        """Show nothing yet.

        Args:
            total: How many rows there are, where that is known.
            account: What grows.
            recovery: Whose limits are named while no row is finished; None: nothing is said then.
        """
        self.total = total
        self.account = account
        self.waits: Callable[[], str] | None = None
        self.replacing: Callable[[], bool] = lambda: False
        self._still: Stillness | None = None
        if recovery is not None:
            self._still = Stillness(lambda: account.rows, self._waits, limits(recovery))
        self.in_flight: Callable[[], int] = lambda: 0
        self.replicas: int | None = None
        self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Start the clock, and the bar if somebody watches."""
        self.account.began = self._said = time.monotonic()
        if self._still is not None:
            self._still.start()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("", total=self.total, detail="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._still is not None:
            self._still.stop()
        if self._bar is not None:
            self._bar.stop()

    def _waits(self) -> str:
        if self.waits is not None:
            return self.waits()
        flight = self.in_flight()
        if self.replacing():
            return f"a new engine in the place of one that died, with {flight} rows in flight"
        return f"the engine, with {flight} rows in flight" if flight else ""  # else for the input

    def update(self, _columns: dict[str, Any]) -> None:
        """Take note that the account has one more row."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self.account.rows, detail=self._detail())
        elif time.monotonic() - self._said >= _SECONDS:
            self._said = time.monotonic()
            of = "" if self.total is None else f" of {self.total}"
            say(f"{self.account.rows}{of} rows, {self._detail()}{self._eta()}")

    def _detail(self) -> str:
        account = self.account
        seconds = max(account.seconds, 1e-6)
        parts = [f"{account.failed} failed"] if account.failed else []
        parts += [f"{account.replayed} replayed"] if account.replayed else []
        parts += [f"{self.in_flight()} in flight"] if self.in_flight() else []
        parts += [f"{self.replicas} replica{'s' * (self.replicas != 1)}"] if self.replicas is not None else []
        parts.append(f"{account.rows / seconds:.1f} rows/s")
        parts.append(f"tokens/s {account.prompt_tokens / seconds:.0f} in, {account.generated_tokens / seconds:.0f} out")
        cost = account.cost
        parts += [f"cost {cost:.4f}"] if cost is not None else []
        return ", ".join(parts)

    def _eta(self) -> str:
        account = self.account
        if self.total is None or not account.rows:
            return ""
        left = max(0, self.total - account.rows) * account.seconds / account.rows
        minutes, seconds = divmod(int(left + 0.5), 60)
        hours, minutes = divmod(minutes, 60)
        return f", {hours}:{minutes:02}:{seconds:02} left"

    def tell(self, n_in: int, *, partial: bool) -> None:
        """Print the account of the whole run: a line, and a table of the kinds of errors."""
        account = self.account
        if not partial:
            account.balance(n_in)
        if sys.stderr.isatty():
            self._table(n_in, partial=partial)
            return
        seconds = max(account.seconds, 1e-6)
        head = f"{account.rows} of {n_in} rows read" if partial else f"{n_in} rows in"
        replayed = f" ({account.replayed} replayed)" if account.replayed else ""
        cost = account.cost
        say(
            f"{head} = {account.ok} ok{replayed} + {account.failed} failed; {account.generated_tokens} tokens in "
            f"{seconds:.1f} s, {account.rows / seconds:.1f} rows/s, {account.generated_tokens / seconds:.0f} tokens/s"
            + (f", cost {cost:.4f}" if cost is not None else "")
        )
        for code, kind in account.kinds():
            message = " ".join(kind.message.split())
            short = message if len(message) <= _WIDTH else message[: _WIDTH - 3] + "..."
            say(f"  {kind.count:>8} {code}, such as row {kind.row}: {short}")

    def _table(self, n_in: int, *, partial: bool) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        account = self.account
        seconds = max(account.seconds, 1e-6)
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(justify="right")
        table.add_column()
        cached = f", {account.cached_tokens} of them cached" if account.cached_tokens else ""
        lines = [
            (n_in, "rows read" if partial else "rows in"),
            (account.ok, f"ok, {account.replayed} of them known before" if account.replayed else "ok"),
            (account.failed, "failed"),
            (account.prompt_tokens, f"tokens in{cached}"),
            (account.generated_tokens, f"tokens out, {account.generated_tokens / seconds:.0f} a second"),
            (f"{seconds:.1f}", f"seconds, {account.rows / seconds:.1f} rows a second"),
        ]
        if account.cost is not None:
            lines.append((f"{account.cost:.4f}", "paid"))
        for number, what in lines:
            table.add_row(str(number), what)
        for code, kind in account.kinds():
            table.add_row(str(kind.count), Text(f"{code}, such as row {kind.row}: {' '.join(kind.message.split())}"))
        Console(stderr=True).print(table)
