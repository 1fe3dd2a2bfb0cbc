"""What was spent, by what: from the sums of hours that are over, and from the rows of those that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runtime.core.metering.cost import money_text
from runtime.core.metering.ledger import DAY_SECONDS, HOUR_SECONDS, WARM_UPS, Purpose, hour_of
from runtime.core.metering.usage import Usage
from runtime.store.spending.ledger_sums import COUNTS, Horizon, horizon_of
from runtime.store.tables import LEDGER, LEDGER_LATE, LEDGER_SUMS, SESSION_SUMS

MOST_GROUPS = 10_000
"""Groups that are returned; only of sessions there are more, and nobody reads so many."""

_SUMMED = ("requests", "hops", *COUNTS, "cost")


def usage_by(connection: Connection, by: str, since: float) -> list[dict[str, Any]]:
    """Return requests, hops, tokens and cost by one of ``GROUPS``; sessions with whose tenants' they are.

    Of more than ``MOST_GROUPS`` groups those that have spent the most tokens are returned. A request counts
    at the time at which it began. Of days whose rows have gone, ``since`` means the beginning of its day, and
    nothing is known of sessions.
    """
    whose = ["tenant"] if by == "session" else []
    parts = _parts(connection, by, whose, since)
    both = sa.union_all(*parts).subquery()
    groups = [both.c[name] for name in (by, *whose)]
    sums = [sa.func.sum(both.c[name]).label(name) for name in _SUMMED]
    most = sa.desc(sa.func.sum(both.c.prompt) + sa.func.sum(both.c.completion))
    grouped = sa.select(*groups, *sums).group_by(*groups).order_by(most, *groups).limit(MOST_GROUPS)
    rows = sorted(
        connection.execute(grouped).mappings(), key=lambda row: tuple(row[name] for name in (by, *whose))
    )
    convert: dict[str, Callable[[Any], Any]] = {"cost": lambda nano: money_text(int(nano))}
    convert |= dict.fromkeys((by, *whose), lambda value: value)
    named = {name: f"{name}_tokens" for name in COUNTS}
    return [
        {named.get(name, name): convert.get(name, int)(value) for name, value in row.items()} for row in rows
    ]


def total_of(connection: Connection) -> Usage:
    """Return every token that the ledger knows of."""
    parts = sa.union_all(*_parts(connection, "purpose", [], 0.0)).subquery()
    sums = [sa.func.coalesce(sa.func.sum(parts.c[name]), 0) for name in COUNTS]
    prompt, cached, completion, reasoning = map(int, connection.execute(sa.select(*sums)).one())
    return Usage(prompt, completion, cached, reasoning)


def _parts(connection: Connection, by: str, whose: Sequence[str], since: float) -> list[sa.Select[Any]]:
    horizon = horizon_of(connection)
    late = list(connection.execute(sa.select(LEDGER_LATE.c.hour)).scalars())
    table = SESSION_SUMS if by == "session" else LEDGER_SUMS
    begins = _begin(since, horizon)
    summed = [table.c.hour >= begins, table.c.hour < horizon.summed, table.c.hour.not_in(late)]
    read = [LEDGER.c.admitted >= max(horizon.summed, since)]
    read += [_between(max(hour, since), hour + HOUR_SECONDS) for hour in late]
    read += [_between(since, begins)] if since < begins <= horizon.summed else []
    return [
        _of_sums(connection, table, by, whose).where(*summed),
        _of_rows(connection, by, whose).where(LEDGER.c.admitted >= horizon.kept, sa.or_(*read)),
    ]


def _begin(since: float, horizon: Horizon) -> int:
    """Return from which hour on sums count: the first whole one, or one whose rows are gone."""
    if since < horizon.kept:
        return int(since // DAY_SECONDS) * DAY_SECONDS
    hour = hour_of(since)
    return hour if hour == since else hour + HOUR_SECONDS


def _between(begin: float, end: float) -> sa.ColumnElement[bool]:
    return (LEDGER.c.admitted >= begin) & (LEDGER.c.admitted < end)


def _of_sums(connection: Connection, table: sa.Table, by: str, whose: Sequence[str]) -> sa.Select[Any]:
    group = _day(connection, table.c.hour) if by == "day" else _named(table, by)
    counted = f"requests_by_{by}" if f"requests_by_{by}" in table.c else "requests"
    named = {"requests": counted}
    sums = [sa.func.sum(table.c[named.get(name, name)]).label(name) for name in _SUMMED]
    keys = [group.label(by), *(table.c[name] for name in whose)]
    return sa.select(*keys, *sums).group_by(group, *(table.c[name] for name in whose))


def _of_rows(connection: Connection, by: str, whose: Sequence[str]) -> sa.Select[Any]:
    group = _day(connection, LEDGER.c.admitted) if by == "day" else _named(LEDGER, by)
    request = sa.case((LEDGER.c.request != "", LEDGER.c.request))
    sums = [sa.func.sum(LEDGER.c[name]).label(name) for name in (*COUNTS, "cost")]
    counts = [sa.func.count(sa.distinct(request)).label("requests"), sa.func.count().label("hops")]
    keys = [group.label(by), *(LEDGER.c[name] for name in whose)]
    return sa.select(*keys, *counts, *sums).group_by(group, *(LEDGER.c[name] for name in whose))


def _named(table: sa.Table, by: str) -> Any:
    """Return the column of a group. Warm-ups are one group: their chains and steps are no client's.

    Literals, not parameters: PostgreSQL must see the same expression in what is grouped by.
    """
    if by not in ("chain", "step"):
        return table.c[by]
    warms_up = table.c.purpose == sa.literal_column(f"'{Purpose.WARMUP}'")
    return sa.case((warms_up, sa.literal_column(f"'{WARM_UPS}'")), else_=table.c[by])


def _day(connection: Connection, at: sa.ColumnElement[Any]) -> Any:
    """Return the UTC day of a moment, as text."""
    if connection.dialect.name == "postgresql":
        utc = sa.func.timezone(sa.literal_column("'UTC'"), sa.func.to_timestamp(at))
        return sa.func.to_char(utc, sa.literal_column("'YYYY-MM-DD'"))
    return sa.func.strftime(sa.literal_column("'%Y-%m-%d'"), at, sa.literal_column("'unixepoch'"))
