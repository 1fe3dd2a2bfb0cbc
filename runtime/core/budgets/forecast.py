"""When a cap will run out if spending goes on as it does now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from runtime.core.budgets.budget import Cap, Per, Unit, Window, window_of

_HOUR_S, _DAY_S = 3600.0, 86_400.0

TRAIL_SECONDS = {
    Window.MINUTE: 60.0,
    Window.HOUR: 0.25 * _HOUR_S,
    Window.DAY: 6 * _HOUR_S,
    Window.MONTH: 7 * _DAY_S,
    Window.TOTAL: 7 * _DAY_S,
}
"""How far back the present rate looks: long against bursts, short against the window, whole weeks."""

LEAST_SECONDS = 60.0
"""Spending that began just now is taken to have gone on for so long: a moment is no rate."""


class Recent(NamedTuple):
    """What was spent within the trail, and when the first of it, or of the trail before, began."""

    amount: int
    first: float


@dataclass(frozen=True)
class Forecast:
    """How a cap stands, and when it runs out at the present rate. Times are seconds since the Unix epoch."""

    cap: Cap
    subject: str
    """Whose counter it is; of several, that which runs out first. Empty if there is none."""
    spent: int
    per_second: float
    runs_out: float | None
    """None if it does not within its window."""
    ends: float
    """When the window ends."""


def is_spent_up(cap: Cap) -> bool:
    """Say whether what ``cap`` counts adds up over requests, so that it can run out."""
    return cap.unit is not Unit.CONCURRENT and cap.per is not Per.REQUEST


def rate(cap: Cap, recent: Recent, at: float) -> float:
    """Return how much is spent in a second.

    Who has spent for longer than the trail is measured over the trail, with its pauses; who has begun
    within it since then, or a new tenant's rate would be too low for days.
    """
    span = min(TRAIL_SECONDS[cap.window], max(LEAST_SECONDS, at - recent.first))
    return recent.amount / span


def forecast(cap: Cap, subject: str, spent: int, per_second: float, at: float) -> Forecast:
    """Return when a counter reaches its limit if from ``at`` on as much is spent as now."""
    _, ends = window_of(cap.window, at)
    runs_out = None
    if spent >= cap.limit:
        runs_out = at
    elif per_second > 0 and at + (cap.limit - spent) / per_second < ends:
        runs_out = at + (cap.limit - spent) / per_second
    return Forecast(cap, subject, spent, per_second, runs_out, ends)


def soonest(forecasts: Iterable[Forecast]) -> Forecast:
    """Return the one that runs out first; if none does, that of which most is spent."""
    return min(forecasts, key=lambda f: (float("inf") if f.runs_out is None else f.runs_out, -f.spent))
