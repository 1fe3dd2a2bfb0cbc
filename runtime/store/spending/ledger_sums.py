"""The ledger's sums: each hour that is over is summed up once, and its rows may go after their days.

An hour is that in which a request began, so that all its hops are summed up together, and each request is
counted once: by the first of its hops, and by the first at each step, on each engine and with each outcome.
A row that is written to an hour that may have been summed up marks the hour as late, in the same
transaction; until it has been summed up again, usage reads its rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from runtime.core.metering.ledger import DAY_SECONDS, HOUR_SECONDS, LedgerRow, hour_of
from runtime.store.sql.database import Turn, insert_into, reading, take_turn_alone, writing
from runtime.store.sql.patience import REPORT_SECONDS
from runtime.store.sql.prepared import Direct, Prepared
from runtime.store.tables import AUDIT, LEDGER, LEDGER_HORIZON, LEDGER_LATE, LEDGER_SUMS, SESSION_SUMS

_log = logging.getLogger(__name__)

LATE_SECONDS = 120.0
"""How long after an hour's end a row that is written to it marks it as late."""

CLOSED_SECONDS = 300.0
"""How long after its end an hour is summed up: later by more than transactions take and clocks differ."""

_HOURS_AT_ONCE = 200
"""Hours, and days, of one pass; there are more only after an upgrade or a long outage."""

_ROWS_AT_ONCE, _TIMES = 2_000, 200
"""Rows that are deleted in one transaction, for which others wait, and transactions of one pass."""

COUNTS = ("prompt", "cached", "completion", "reasoning")
_SUMMED = ("hops", *COUNTS, "cost")
_REQUESTS = {"requests": None, **{f"requests_by_{name}": name for name in ("step", "engine", "outcome")}}
"""What counts a request by the first of its hops: by the first of all, or of those alike in a column."""


class Horizon(NamedTuple):
    """How far the ledger has been summed up, and since when its rows are kept: when hours begin."""

    summed: int
    kept: int


class LateRows:
    """Marks hours as late, within the transaction that writes their rows."""

    def __init__(self, engine: Engine) -> None:
        new = insert_into(engine, LEDGER_LATE).values(hour=sa.bindparam("hour"), edition=1)
        again = {"edition": LEDGER_LATE.c.edition + 1}
        self._mark = Prepared(new.on_conflict_do_update(index_elements=["hour"], set_=again))
        self._kept = Prepared(sa.select(LEDGER_HORIZON.c.kept))

    def without_deleted(self, direct: Direct, rows: Sequence[LedgerRow], now: float) -> Sequence[LedgerRow]:
        """Return ``rows`` without those of days whose rows have been deleted: they may have been charged."""
        if not any(_is_late(row, now) for row in rows):
            return rows
        ((kept,),) = self._kept.rows(direct)
        left = [row for row in rows if row.at >= kept]
        if len(left) < len(rows):
            gone = len(rows) - len(left)
            _log.warning("%d hops not counted: the rows of their days have been deleted", gone)
        return left

    def mark(self, direct: Direct, rows: Sequence[LedgerRow], now: float) -> None:
        """Mark the hours of those of ``rows`` that come late."""
        hours = sorted({hour_of(row.at) for row in rows if _is_late(row, now)})
        self._mark.each(direct, [{"hour": hour} for hour in hours])


def _is_late(row: LedgerRow, now: float) -> bool:
    return hour_of(row.at) + HOUR_SECONDS + LATE_SECONDS < now


class LedgerSums:
    """Sums up, and deletes what is past its retention. Calls block. Each may raise StoreUnavailable."""

    def __init__(self, engine: Engine, ledger_days: int, audit_days: int) -> None:
        self._engine = engine
        self._ledger_days = ledger_days
        self._audit_days = audit_days

    def keep(self, now: float) -> None:
        """Sum up the hours that are over at ``now``, and delete what is past its retention."""
        self.sum_up(now)
        horizon = self._forget_from(now)
        self._delete(LEDGER, LEDGER.c.hop, LEDGER.c.admitted < horizon.kept)
        self._delete_sessions(horizon.kept)
        self._join_days(horizon.kept)
        self._delete(AUDIT, AUDIT.c.id, AUDIT.c.at < now - self._audit_days * DAY_SECONDS)

    # -- summing up -------------------------------------------------------------------------------

    def sum_up(self, now: float) -> None:
        """Sum up every hour that is over and has not been summed up, and those that are late."""
        closed = hour_of(now - CLOSED_SECONDS)
        self._retreat(closed)
        for _ in range(_HOURS_AT_ONCE):
            summed = self._horizon().summed
            if summed >= closed:
                break
            first = self._first_after(summed)
            if first is None or first >= closed:
                self._advance(closed)
                break
            self._sum_hour(hour_of(first))
            self._advance(hour_of(first) + HOUR_SECONDS)
        summed = self._horizon().summed
        late = sa.select(LEDGER_LATE.c.hour, LEDGER_LATE.c.edition).where(LEDGER_LATE.c.hour < summed)
        with reading(self._engine) as connection:
            marks = connection.execute(late.order_by(LEDGER_LATE.c.hour).limit(_HOURS_AT_ONCE)).all()
        for hour, edition in marks:
            self._sum_hour(hour, edition)

    def _horizon(self) -> Horizon:
        with reading(self._engine) as connection:
            return horizon_of(connection)

    def _first_after(self, summed: int) -> float | None:
        with reading(self._engine) as connection:
            first = sa.select(sa.func.min(LEDGER.c.admitted)).where(LEDGER.c.admitted >= summed)
            found = connection.execute(first).scalar_one()
        return None if found is None else float(found)

    def _advance(self, summed: int) -> None:
        further = sa.update(LEDGER_HORIZON).where(LEDGER_HORIZON.c.summed < summed).values(summed=summed)
        with writing(self._engine) as connection:
            connection.execute(further)

    def _retreat(self, closed: int) -> None:
        """Sum up again what was summed up before it was over: by then the clock was ahead.

        Otherwise later rows of those hours would neither be read as rows nor be summed up.
        """
        again = LEDGER_HORIZON.c.kept
        back = sa.case((again > closed, again), else_=closed)
        ahead = sa.update(LEDGER_HORIZON).where(LEDGER_HORIZON.c.summed > back).values(summed=back)
        with writing(self._engine) as connection:
            connection.execute(ahead)

    def _sum_hour(self, hour: int, edition: int | None = None) -> None:
        """Replace the sums of an hour; rows written after ``edition`` have it summed up once more.

        They are read beforehand, for writers must not wait for that.
        """
        with reading(self._engine, REPORT_SECONDS) as connection:
            sums = [dict(row) for row in connection.execute(_sums_of_hour(hour)).mappings()]
            sessions = [dict(row) for row in connection.execute(_sessions_of_hour(hour)).mappings()]
        with writing(self._engine, REPORT_SECONDS) as connection:
            take_turn_alone(connection, Turn.SUMS)  # of two managers that overlap for a moment
            if hour < horizon_of(connection).kept:
                return
            for table, rows in ((LEDGER_SUMS, sums), (SESSION_SUMS, sessions)):
                connection.execute(sa.delete(table).where(table.c.hour == hour))
                if rows:
                    connection.execute(sa.insert(table), [{"hour": hour, **row} for row in rows])
            if edition is not None:
                this = (LEDGER_LATE.c.hour == hour) & (LEDGER_LATE.c.edition == edition)
                connection.execute(sa.delete(LEDGER_LATE).where(this))

    # -- letting go -------------------------------------------------------------------------------

    def _forget_from(self, now: float) -> Horizon:
        """Move the day since which rows are kept, if all before has been summed up; nobody writes meanwhile.

        From then on rows of an earlier day are left out: if deleted, they would be charged twice.
        """
        oldest = int((now - self._ledger_days * DAY_SECONDS) // DAY_SECONDS) * DAY_SECONDS
        horizon = self._horizon()
        if oldest <= horizon.kept or horizon.summed < oldest:
            return horizon
        with writing(self._engine) as connection:
            take_turn_alone(connection, Turn.LEDGER)
            late = sa.select(LEDGER_LATE.c.hour).where(LEDGER_LATE.c.hour < oldest).limit(1)
            if connection.execute(late).first() is not None:
                return horizon
            connection.execute(sa.update(LEDGER_HORIZON).values(kept=oldest))
        return horizon._replace(kept=oldest)

    def _delete(self, table: sa.Table, key: sa.Column[Any], which: sa.ColumnElement[bool]) -> None:
        """Delete rows, a few in each transaction."""
        some = sa.delete(table).where(key.in_(sa.select(key).where(which).limit(_ROWS_AT_ONCE)))
        for _ in range(_TIMES):
            with writing(self._engine) as connection:
                if connection.execute(some).rowcount < _ROWS_AT_ONCE:
                    return

    def _delete_sessions(self, kept: int) -> None:
        first = sa.select(sa.func.min(SESSION_SUMS.c.hour))
        for _ in range(_HOURS_AT_ONCE):
            with writing(self._engine) as connection:
                hour = connection.execute(first).scalar_one()
                if hour is None or hour >= kept:
                    return
                connection.execute(sa.delete(SESSION_SUMS).where(SESSION_SUMS.c.hour == hour))

    def _join_days(self, kept: int) -> None:
        """Let a day without rows be one hour of its sums: its first."""
        hours = LEDGER_SUMS.c.hour
        apart = sa.select(sa.func.min(hours)).where(hours < kept, hours % DAY_SECONDS != 0)
        for _ in range(_HOURS_AT_ONCE):
            with writing(self._engine) as connection:
                take_turn_alone(connection, Turn.SUMS)
                hour = connection.execute(apart).scalar_one()
                if hour is None:
                    return
                _join_day(connection, hour - hour % DAY_SECONDS)


def horizon_of(connection: Connection) -> Horizon:
    """Return how far the ledger has been summed up, and since when its rows are kept."""
    row = connection.execute(sa.select(LEDGER_HORIZON.c.summed, LEDGER_HORIZON.c.kept)).one()
    return Horizon(int(row.summed), int(row.kept))


def _join_day(connection: Connection, day: int) -> None:
    of_day = (LEDGER_SUMS.c.hour >= day) & (LEDGER_SUMS.c.hour < day + DAY_SECONDS)
    dimensions = [column for column in LEDGER_SUMS.primary_key if column.name != "hour"]
    sums = [sa.func.sum(LEDGER_SUMS.c[name]).label(name) for name in (*_REQUESTS, *_SUMMED)]
    joined = sa.select(*dimensions, *sums).where(of_day).group_by(*dimensions)
    rows = [{**row, "hour": day} for row in connection.execute(joined).mappings()]
    connection.execute(sa.delete(LEDGER_SUMS).where(of_day))
    connection.execute(sa.insert(LEDGER_SUMS), rows)


def _sums_of_hour(hour: int) -> sa.Select[Any]:
    dimensions = [column.name for column in LEDGER_SUMS.primary_key if column.name != "hour"]
    rows = sa.select(
        *(LEDGER.c[name] for name in (*dimensions, *COUNTS, "cost")),
        *(_first(by).label(name) for name, by in _REQUESTS.items()),
    )
    return _grouped(rows.where(*_within(hour)).subquery(), dimensions, [*_REQUESTS])


def _sessions_of_hour(hour: int) -> sa.Select[Any]:
    dimensions = ["tenant", "session"]
    rows = sa.select(
        *(LEDGER.c[name] for name in (*dimensions, *COUNTS, "cost")), _first(None).label("requests")
    )
    return _grouped(rows.where(*_within(hour)).subquery(), dimensions, ["requests"])


def _grouped(rows: sa.Subquery, dimensions: Sequence[str], requests: Sequence[str]) -> sa.Select[Any]:
    by = [rows.c[name] for name in dimensions]
    sums = [sa.func.sum(rows.c[name]).label(name) for name in (*requests, *COUNTS, "cost")]
    return sa.select(*by, *sums, sa.func.count().label("hops")).group_by(*by)


def _first(by: str | None) -> sa.ColumnElement[int]:
    """Return 1 for the first row of its request (``by`` a column: with that value), else 0."""
    parts = [LEDGER.c.request, *([LEDGER.c[by]] if by else [])]
    place = sa.func.row_number().over(partition_by=parts, order_by=LEDGER.c.hop)
    return sa.case((sa.and_(LEDGER.c.request != "", place == 1), 1), else_=0)


def _within(hour: int) -> Iterator[sa.ColumnElement[bool]]:
    yield LEDGER.c.admitted >= hour
    yield LEDGER.c.admitted < hour + HOUR_SECONDS
