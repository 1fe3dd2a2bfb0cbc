"""Pictures of results. They need matplotlib, which nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.errors import CommandError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank(width: float, height: float) -> Figure:
    """Return a figure to draw on, its size in inches. Raises CommandError without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only whoever wants a picture needs it
    except ImportError as error:
        raise CommandError("a picture needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")
