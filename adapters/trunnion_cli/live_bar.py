"""Draw how a batch comes along on a terminal: what matters on one line, and the rest below, cut to the width."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text


class LiveBar(Progress):
    """Show two lines, which redraw themselves until ``stop()``; they are then gone."""

    def __init__(self, total: int | None, console: Console | None = None) -> None:
        """Draw nothing yet.

        Args:
            total: How many rows there are, where that is known.
            console: Where to draw; None: on stderr.
        """
        self._detail = ""
        super().__init__(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console or Console(stderr=True),
            transient=True,
            refresh_per_second=4,
        )
        self._rows = self.add_task("", total=total, left="")

    def show(self, rows: int, detail: str, left: str | None) -> None:
        """Take what is shown from now on: the rows that are written, all else, and the time that is left."""
        self._detail = detail
        self.update(self._rows, completed=rows, left=f"{left or '-:--:--'} left")

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the lines."""
        yield from super().get_renderables()
        yield Text(self._detail, no_wrap=True, overflow="ellipsis")
