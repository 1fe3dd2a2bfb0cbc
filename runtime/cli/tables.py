"""Tables that lose nothing: as wide as they need in a pipe, and on a terminal as the terminal allows."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE = 10_000
"""Columns of what is no terminal."""

_LEAST = 12
"""Of a column that is wrapped: a digest as it is shown, and a long word."""


def console(*, stderr: bool = False) -> Console:
    """Return where tables are printed: what is no terminal has lines as long as they are needed."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr) if stream.isatty() else Console(stderr=stderr, width=_WIDE)


class Grid:
    """Rows under heads. Cells of the columns ``sentences`` are wrapped, and no other.

    Where not even that leaves room for all columns, each row is printed as lines of a head and a cell.
    """

    def __init__(self, heads: Sequence[str], sentences: Collection[str] = (), title: str = "") -> None:
        self._heads = heads
        self._sentences = sentences
        self._title = title
        self._rows: list[list[Text]] = []

    def row(self, *cells: str | Text) -> None:
        """Add a row."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what fits."""
        table = self._table()
        least = Measurement.get(console, options.update(max_width=_WIDE), table).minimum
        yield table if least <= options.max_width else self._lines()

    def _table(self) -> Table:
        table = Table(title=self._title or None)
        for head in self._heads:
            free = head in self._sentences
            table.add_column(head, no_wrap=not free, min_width=_LEAST if free else None, overflow="fold")
        for row in self._rows:
            table.add_row(*row)
        return table

    def _lines(self) -> Text:
        widest = max(len(head) for head in self._heads)
        text = Text(f"{self._title}\n" if self._title else "")
        for number, row in enumerate(self._rows):
            text.append("\n" if number else "")
            for head, cell in zip(self._heads, row, strict=True):
                if cell.plain:
                    text.append(f"{head:<{widest}}  ", "bold").append_text(cell).append("\n")
        text.rstrip()
        return text


def counted(number: int, what: str, more: str | None = None) -> str:
    """Return how many there are: ``1 gateway``, ``2 gateways``."""
    return f"{number} {what}" if number == 1 else f"{number} {more or what + 's'}"
