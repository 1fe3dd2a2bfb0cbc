"""How a benchmark ends early: an error told in a line, and 130 on Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from runtime.errors import InterlockError

_INTERRUPTED = 130


@contextmanager
def told(console: Console) -> Iterator[None]:
    """Print what ends the block early, and exit as a command should."""
    try:
        yield
    except InterlockError as error:
        console.print(Text("error: ", "red").append(str(error), "default"))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        console.print("interrupted; everything that was started is ended")
        raise typer.Exit(_INTERRUPTED) from error
