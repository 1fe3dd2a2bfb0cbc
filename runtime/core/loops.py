"""Loops that must live as long as their process: when a broken one is started again, and its report."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE_SECONDS = 1.0
"""Pause before a loop that broke is started again; each time that it breaks again, twice as long."""

LONGEST_PAUSE_SECONDS = 10.0
"""Bound of that pause: whatever the loop keeps up is that much late, and not longer."""

STEADY_SECONDS = 60.0
"""A loop that has run for so long has recovered: when it breaks again, that counts as the first time."""

NEWS_SECONDS = 300.0
"""How long health shows a loop that broke; metrics count it for good."""


@dataclass(frozen=True)
class LoopReport:
    """A loop of one process that has broken at least once."""

    loop: str
    restarts: int
    """How often it has been started again since its process started."""
    error: str
    """What it broke by last."""
    at: float
    """Wall time of that, in seconds since the Unix epoch."""


def pause_after(failures: int) -> float:
    """Return how many seconds to wait once a loop has broken ``failures`` times in a row."""
    doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16)
    return min(doubled, LONGEST_PAUSE_SECONDS)
