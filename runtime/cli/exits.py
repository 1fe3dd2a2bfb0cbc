"""How a command ends: one line on stderr and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from runtime.errors import InterlockError

HELD = 5
"""Exit code where the release waits for an operator. No command uses it for anything else."""

INTERRUPTED = 130
"""Exit code that shells use for a program that Ctrl-C ended."""


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn an error of ours into its message and exit code 1, and Ctrl-C into 130."""
    try:
        yield
    except InterlockError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as interrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt
