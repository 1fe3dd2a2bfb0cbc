"""What the store knows of the present rate of spending, by the ledger's newest rows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runtime.core.budgets.budget import Cap, Unit, window_of
from runtime.core.budgets.forecast import (
    TRAIL_SECONDS,
    Forecast,
    Recent,
    forecast,
    is_spent_up,
    rate,
    soonest,
)
from runtime.store.tables import COUNTERS, LEDGER


def forecast_of(connection: Connection, cap: Cap, at: float) -> Forecast:
    """Return when ``cap`` runs out, for the subject that is the first to run out of it."""
    nobody = forecast(cap, "", 0, 0.0, at)
    if not is_spent_up(cap):
        return nobody
    spent, recent = _spent(connection, cap, at), _recent(connection, cap, at)
    subjects = {subject: rate(cap, recent[subject], at) if subject in recent else 0.0 for subject in spent}
    subjects |= {subject: rate(cap, recent[subject], at) for subject in recent}
    each = [forecast(cap, name, spent.get(name, 0), per_second, at) for name, per_second in subjects.items()]
    return soonest(each or [nobody])


def _spent(connection: Connection, cap: Cap, at: float) -> dict[str, int]:
    """Return what is spent in the window that holds ``at``, by subject."""
    begins, _ = window_of(cap.window, at)
    mine = (COUNTERS.c.cap == cap.id) & (COUNTERS.c.window == begins)
    rows = connection.execute(sa.select(COUNTERS.c.subject, COUNTERS.c.spent).where(mine))
    return {subject: int(spent) for subject, spent in rows}


def _recent(connection: Connection, cap: Cap, at: float) -> dict[str, Recent]:
    """Return what was spent within the cap's trail, by subject."""
    trail = TRAIL_SECONDS[cap.window]
    subject: Any = LEDGER.c[cap.per.value]
    within = LEDGER.c.admitted >= at - trail
    of_it = [LEDGER.c.tenant == cap.tenant, subject != "", LEDGER.c.admitted >= at - 2 * trail]
    of_it += [LEDGER.c.key == cap.key] if cap.key else []
    amounts = sa.select(subject, _amount(cap.unit, within), sa.func.min(LEDGER.c.admitted))
    rows = connection.execute(amounts.where(*of_it).group_by(subject))
    return {name: Recent(int(amount), first) for name, amount, first in rows}


def _amount(unit: Unit, within: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Return the expression that sums up what rows ``within`` a time have spent of ``unit``."""
    if unit is Unit.REQUESTS:
        return sa.func.count(sa.distinct(sa.case((within, LEDGER.c.request))))
    spent = LEDGER.c.cost if unit is Unit.COST else LEDGER.c.prompt + LEDGER.c.completion
    return sa.func.sum(sa.case((within, spent), else_=0))
