"""Show how a batch comes along: a live line on a terminal, else a plain one every ten seconds; then a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from .console import say
from .pace import Pace
from .stillness import Stillness, limits
from .ticker import Ticker

if TYPE_CHECKING:
    from trunnion_batch.account import Account, ErrorKind
    from trunnion_batch.recovery import Recovery

    from .live_bar import LiveBar

_SECONDS: Final = 10.0
_TICK: Final = 0.25
_WIDTH: Final = 100


class Progress:
    """Show on stderr how a run comes along, by the clock and not by its rows. A context manager.

    Attributes:
        total: How many rows there are, where that is known.
        account: Counts the rows that were written.
        live: Counts the rows that were answered, also those that wait for slower ones before them; the account itself
            where rows are written as they are answered.
        look: Called before each look, on a thread of its own: brings ``live`` up to date where something else counts.
        in_flight: Returns how many rows are being answered.
        starting: Returns what starts, while nothing can be answered; else "".
        replacing: Returns whether a new engine is made in the place of one that died.
        waits: Returns what is waited for, where somebody knows more than this does.
        replicas: How many engines there are.
    """

    def __init__(self, total: int | None, account: Account, recovery: Recovery | None = None) -> None:
        """Show nothing yet.

        Args:
            total: How many rows there are, where that is known.
            account: What grows.
            recovery: Whose limits are named while no row is finished; None: nothing is said then.
        """
        self.total = total
        self.account = self.live = account
        self.look: Callable[[], None] = lambda: None
        self.in_flight: Callable[[], int] = lambda: 0
        self.starting: Callable[[], str] = lambda: ""
        self.replacing: Callable[[], bool] = lambda: False
        self.waits: Callable[[], str] | None = None
        self.replicas: int | None = None
        self._still: Stillness | None = None
        if recovery is not None:
            self._still = Stillness(lambda: self.account.rows + self.live.rows, self._waits, limits(recovery))
        self._said = 0.0
        self._pace = Pace()
        self._bar: LiveBar | None = None
        self._ticker = Ticker(self._tick, _TICK, "trunnion-progress")

    def __enter__(self) -> Self:
        """Start the clock, and the bar if somebody watches."""
        self.account.began = self._said = time.monotonic()
        if self._still is not None:
            self._still.start()
        if sys.stderr.isatty():
            from .live_bar import LiveBar

            self._bar = LiveBar(self.total)
            self._tick()
            self._bar.start()
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._ticker.stop()
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

    def _tick(self) -> None:
        self.look()
        self._pace.look(self.live, self.in_flight())
        left = self._pace.left(self.live, self.total)
        if self._bar is not None:
            self._bar.show(self.account.rows, self._detail(), left)
        elif time.monotonic() - self._said >= _SECONDS:
            self._said = time.monotonic()
            of = "" if self.total is None else f" of {self.total}"
            say(f"{self.account.rows}{of} rows written, {self._detail()}" + (f", {left} left" if left else ""))

    def _detail(self) -> str:
        """Return all but the rows and the time; what matters most comes first, since a terminal cuts the end off."""
        account, live = self.account, self.live
        starts, flight = self.starting(), self.in_flight()
        if starts and not live.rows:
            return f"starting {starts} ..."
        seconds = max(account.seconds, 1e-6)
        parts = [f"{live.rows} answered"] if live.rows > account.rows else []
        parts += [f"{live.failed} failed"] if live.failed else []
        parts += [f"{live.replayed} replayed"] if live.replayed else []
        parts += [f"{flight} in flight"] if flight else []
        parts += ["a new engine starts"] if self.replacing() else []
        parts.append(f"{live.new_rows / seconds:.1f} rows/s")
        parts.append(f"tokens/s {live.read_tokens / seconds:.0f} in, {live.generated_tokens / seconds:.0f} out")
        parts += [f"{self.replicas} replica{'s' * (self.replicas != 1)}"] if self.replicas is not None else []
        parts += [f"cost {live.cost:.4f}"] if live.cost is not None else []
        return ", ".join(parts)

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
            f"{head} = {account.ok} ok{replayed} + {account.failed} failed; "
            f"{account.generated_tokens} tokens in {seconds:.1f} s, "
            f"{account.new_rows / seconds:.1f} rows/s, {account.generated_tokens / seconds:.0f} tokens/s"
            + (f", cost {cost:.4f}" if cost is not None else "")
        )
        for code, kind in account.kinds():
            message = " ".join(kind.message.split())
            short = message if len(message) <= _WIDTH else message[: _WIDTH - 3] + "..."
            say(f"  {kind.count:>8} {code}{_such_as(kind)}: {short}")

    def _table(self, n_in: int, *, partial: bool) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        account = self.account
        seconds = max(account.seconds, 1e-6)
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(justify="right")
        table.add_column()
        from_cache = account.cached_tokens - account.replayed_cached_tokens
        cached = f", {from_cache} of them cached" if from_cache else ""
        lines = [
            (n_in, "rows read" if partial else "rows in"),
            (account.ok, f"ok, {account.replayed} of them known before" if account.replayed else "ok"),
            (account.failed, "failed"),
            (account.read_tokens, f"tokens in{cached}"),
            (account.generated_tokens, f"tokens out, {account.generated_tokens / seconds:.0f} a second"),
            (f"{seconds:.1f}", f"seconds, {account.new_rows / seconds:.1f} rows a second"),
        ]
        if account.cost is not None:
            lines.append((f"{account.cost:.4f}", "paid"))
        for number, what in lines:
            table.add_row(str(number), what)
        for code, kind in account.kinds():
            table.add_row(str(kind.count), Text(f"{code}{_such_as(kind)}: {' '.join(kind.message.split())}"))
        Console(stderr=True).print(table)


def _such_as(kind: ErrorKind) -> str:
    return "" if kind.row is None else f", such as row {kind.row}"
