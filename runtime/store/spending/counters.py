"""The counters of caps, read, held and kept inside the transaction of whoever counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from runtime.core.budgets.budget import Counter, CounterId
from runtime.store.sql.database import insert_into
from runtime.store.sql.prepared import Direct, Prepared, PreparedAmong
from runtime.store.tables import COUNTERS

_ID = (COUNTERS.c.cap, COUNTERS.c.subject, COUNTERS.c.window)
_ORDER = (COUNTERS.c.cap, sa.collate(COUNTERS.c.subject, "C"), COUNTERS.c.window)
"""As Python sorts them: all who hold several counters take them in one order, or wait for each other."""
_COLUMNS = (*_ID, *(COUNTERS.c[name] for name in Counter._fields))
_READ = PreparedAmong(_ID, sa.select(*_COLUMNS).where)
_READ_AND_HOLD = PreparedAmong(
    _ID, lambda among: sa.select(*_COLUMNS).where(among).order_by(*_ORDER).with_for_update()
)
_KEEP = Prepared(
    sa.update(COUNTERS)
    .where(*(column == sa.bindparam(f"of_{column.name}") for column in _ID))
    .values({name: sa.bindparam(name) for name in (*Counter._fields, "used")})
)


class MissingCounters(Exception):
    """Counters have to be made before a transaction takes any; it is rolled back, and begins again."""

    def __init__(self, counters: Sequence[CounterId]) -> None:
        super().__init__(f"{len(counters)} counters are not there yet")
        self.counters = counters


class Counters:
    """Holds counters against other transactions, and makes those that are not there yet."""

    def __init__(self, engine: Engine) -> None:
        self._new = Prepared(insert_into(engine, COUNTERS).on_conflict_do_nothing())
        # SQLite has one writer at a time, and knows no collation of this name.
        self._read_and_hold = _READ if engine.dialect.name == "sqlite" else _READ_AND_HOLD

    def hold(
        self, direct: Direct, wanted: Iterable[CounterId], old: Iterable[CounterId], used: float
    ) -> dict[CounterId, Counter]:
        """Return how counters stand, and keep others from changing them.

        Those of ``old`` are held, too, but for those of caps that are gone. Raises MissingCounters: one of
        ``wanted`` is not there. To make it here would be to take it out of its turn, behind others.
        """
        counters = sorted({*wanted, *old})
        held = _counters(self._read_and_hold.rows(direct, counters))
        missing = [counter for counter in wanted if counter not in held]
        if not missing:
            return held
        if direct.dialect.name == "postgresql":
            raise MissingCounters(missing)
        self.make(direct, missing, used)
        return _counters(self._read_and_hold.rows(direct, counters))

    def make(self, direct: Direct, missing: Sequence[CounterId], used: float) -> None:
        """Make counters of which nothing is spent, last used at ``used``."""
        rows = [{**counter._asdict(), **Counter()._asdict(), "used": used} for counter in sorted(missing)]
        self._new.each(direct, rows)


def newest_counters(connection: Connection) -> dict[int, tuple[Counter, str, int]]:
    """Return for each cap's newest window the counter, and the subject, that has taken most, of how many."""
    newest = sa.select(COUNTERS.c.cap, sa.func.max(COUNTERS.c.window).label("window"))
    latest = newest.group_by(COUNTERS.c.cap).subquery()
    same = (COUNTERS.c.cap == latest.c.cap) & (COUNTERS.c.window == latest.c.window)
    most = (COUNTERS.c.spent + COUNTERS.c.reserved).desc()
    place = sa.func.row_number().over(partition_by=COUNTERS.c.cap, order_by=(most, COUNTERS.c.subject))
    subjects = sa.func.count().over(partition_by=COUNTERS.c.cap)
    ranked = (
        sa.select(*_COLUMNS, place.label("place"), subjects.label("subjects")).join(latest, same).subquery()
    )
    first = sa.select(ranked).where(ranked.c.place == 1)
    return {
        row.cap: (Counter(row.spent, row.reserved, row.warned), row.subject, row.subjects)
        for row in connection.execute(first)
    }


def keep_counters(direct: Direct, changed: Mapping[CounterId, Counter], used: float) -> None:
    """Write how counters stand now, which the transaction holds."""
    rows = [{**_of(counter), **changed[counter]._asdict(), "used": used} for counter in sorted(changed)]
    _KEEP.each(direct, rows)


def _counters(rows: Iterable[Sequence[Any]]) -> dict[CounterId, Counter]:
    return {CounterId(*row[:3]): Counter(*row[3:]) for row in rows}


def _of(counter: CounterId) -> dict[str, object]:
    """Return the parameters by which a statement finds a counter."""
    return {"of_cap": counter.cap, "of_subject": counter.subject, "of_window": counter.window}
