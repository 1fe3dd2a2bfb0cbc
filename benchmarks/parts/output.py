"""What a benchmark leaves: its result as JSON, and a picture of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _drawable(path: Path | None) -> Path | None:
    """Refuse a picture before anything is measured, not after."""
    if path is not None and find_spec("matplotlib") is None:
        raise typer.BadParameter("a picture needs matplotlib: pip install matplotlib")
    return path


ReportPath = Annotated[Path | None, typer.Option("--report", help="Write the result as JSON.")]
PicturePath = Annotated[
    Path | None, typer.Option("--plot", help="Draw it, as PNG; needs matplotlib.", callback=_drawable)
]


def write(
    console: Console,
    result: Mapping[str, Any],
    report: Path | None,
    picture: Path | None = None,
    plot: Callable[[Mapping[str, Any], Path], None] | None = None,
) -> None:
    """Write what was asked for, and say where it is. ``plot`` draws a result into a file."""
    if report is not None:
        report.write_text(json.dumps(result) + "\n")
        console.print(f"report written to {report}", highlight=False)
    if picture is not None and plot is not None:
        plot(result, picture)
        console.print(f"picture written to {picture}", highlight=False)


def blank(width: float, height: float) -> Figure:
    """Return a figure to draw on, its size in inches. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only whoever wants a picture needs it

    return Figure(figsize=(width, height), layout="constrained")


def error_bars(axes: Axes, places: Sequence[float], spreads: Sequence[Sequence[float]], **style: Any) -> None:
    """Draw at each place the median of a spread [median, least, most], with bars from least to most."""
    middle = [spread[0] for spread in spreads]
    below, above = [m - least for m, least, _ in spreads], [most - m for m, _, most in spreads]
    axes.errorbar(places, middle, yerr=[below, above], capsize=3, **style)
