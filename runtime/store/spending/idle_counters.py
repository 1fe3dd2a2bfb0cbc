"""Deleting counters that nothing will count on any more: else every request would leave one for ever.

They are looked for without a lock, and dropped one by one in the order in which everybody takes counters, if
nobody has used them meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from runtime.core.budgets.budget import Per, Window, window_of
from runtime.store.sql.database import reading, writing_directly
from runtime.store.sql.prepared import Prepared
from runtime.store.tables import CAPS, COUNTERS

REQUEST_KEPT_SECONDS = 3600.0
"""How long after its last use the counter of one request is kept: its engine may yet report a hop."""

_AT_ONCE = 2_000
"""Counters of one transaction: others wait for it on SQLite."""

_ID = (COUNTERS.c.cap, COUNTERS.c.subject, COUNTERS.c.window)
_DROP = Prepared(
    sa.delete(COUNTERS).where(
        *(column == sa.bindparam(f"of_{column.name}") for column in _ID),
        COUNTERS.c.reserved == 0,
        COUNTERS.c.used == sa.bindparam("seen"),
    )
)


def drop_idle_counters(engine: Engine, now: float, sessions_kept_s: float) -> int:
    """Drop what is over at ``now``, by the store's clock; return how many counters that was.

    It is what counts windows that are over, requests that have ended, sessions (in total) that nobody has
    gone on with for ``sessions_kept_s``, and caps that are gone. Raises StoreUnavailable.
    """
    dropped = 0
    while True:
        with reading(engine) as connection:
            found = connection.execute(_over(now, sessions_kept_s)).all()
        # In one order, as who reserves and settles takes them: else two would wait for each other.
        rows = [
            {"of_cap": cap, "of_subject": subject, "of_window": window, "seen": used}
            for cap, subject, window, used in sorted(map(tuple, found))
        ]
        with writing_directly(engine) as direct:
            _DROP.each(direct, rows)
        dropped += len(rows)
        if len(rows) < _AT_ONCE:
            return dropped


def _over(now: float, sessions_kept_s: float) -> sa.Select[tuple[int, str, int, float]]:
    past = [
        sa.and_(CAPS.c.window == window.value, COUNTERS.c.window < window_of(window, now)[0])
        for window in Window
        if window is not Window.TOTAL
    ]
    ended = sa.and_(CAPS.c.per == Per.REQUEST.value, COUNTERS.c.used < now - REQUEST_KEPT_SECONDS)
    left = sa.and_(CAPS.c.per == Per.SESSION.value, COUNTERS.c.used < now - sessions_kept_s)
    orphaned = sa.and_(CAPS.c.id.is_(None), COUNTERS.c.used < now - REQUEST_KEPT_SECONDS)
    return (
        sa.select(*_ID, COUNTERS.c.used)
        .outerjoin(CAPS, CAPS.c.id == COUNTERS.c.cap)
        .where(COUNTERS.c.reserved == 0, sa.or_(*past, ended, left, orphaned))
        .limit(_AT_ONCE)
    )
