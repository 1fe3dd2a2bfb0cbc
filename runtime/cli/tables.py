"""Tables that cut nothing off: as wide as needed in a pipe, fitted to the width of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE = 10_000
"""Width where there is no terminal."""

_LEAST = 12
"""The least width of a column that is wrapped: a short digest, or a long word."""


def console(*, stderr: bool = False) -> Console:
    """Return the console that tables are printed on; where there is no terminal, lines are never wrapped."""
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


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return how many there are: ``1 gateway``, ``2 gateways``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"
