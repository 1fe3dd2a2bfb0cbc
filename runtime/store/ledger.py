"""The ledger: one row per hop, for good.

A row may be told more than once and by two witnesses: the gateway that made the call knows how it
ended and how long it took, the engine knows exactly what it came to. Rows of one hop are merged, and
the merge gives the same row in whatever order and however often they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine

from runtime.core.ledger import LedgerRow, Outcome
from runtime.core.usage import Usage
from runtime.store.database import reading, writing
from runtime.store.tables import LEDGER

_COUNTS = ("prompt", "cached", "completion", "reasoning")
_AT_ONCE = 500
"""Rows of one statement: databases bound how many parameters it may have."""

GROUPS = ("tenant", "key", "session", "chain", "step", "release", "engine", "purpose", "outcome", "day")
"""What usage can be summed up by."""

Group = Literal["tenant", "key", "session", "chain", "step", "release", "engine", "purpose", "outcome", "day"]


class Ledger:
    """Reads and writes the ledger. Calls block: make them from a thread. All raise StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        new = insert(LEDGER)
        self._merge = new.on_conflict_do_update(index_elements=["hop"], set_=_merged(new.excluded))

    def write(self, rows: Iterable[LedgerRow]) -> None:
        """Write ``rows`` in one transaction; they count once this returns. Raises StoreUnavailable."""
        # Of two rows in one order, two processes that write the same ones would wait for each other.
        values = sorted((row.as_row() for row in rows), key=lambda row: str(row["hop"]))
        if values:
            with writing(self._engine) as connection:
                connection.execute(self._merge, values)

    def reconcile(self, rows: Sequence[LedgerRow]) -> int:
        """Write those of ``rows`` that are missing, or count more than is known; return how many."""
        known: dict[str, tuple[int, int]] = {}
        with reading(self._engine) as connection:
            for begin in range(0, len(rows), _AT_ONCE):
                hops = [row.tag.hop for row in rows[begin : begin + _AT_ONCE]]
                found = sa.select(LEDGER.c.hop, LEDGER.c.prompt, LEDGER.c.completion)
                for hop, prompt, completion in connection.execute(found.where(LEDGER.c.hop.in_(hops))):
                    known[hop] = prompt, completion
        differing = [row for row in rows if known.get(row.tag.hop) != row.usage[:2]]
        self.write(differing)
        return len(differing)

    def total(self) -> Usage:
        """Return every token that the ledger knows of."""
        sums = [sa.func.coalesce(sa.func.sum(LEDGER.c[name]), 0) for name in _COUNTS]
        with reading(self._engine) as connection:
            prompt, cached, completion, reasoning = connection.execute(sa.select(*sums)).one()
        return Usage(int(prompt), int(completion), int(cached), int(reasoning))

    def usage(self, by: Group, since: float = 0.0) -> list[dict[str, Any]]:
        """Return hops, requests and tokens since ``since`` (seconds since the Unix epoch), by group."""
        group = _day(self._engine) if by == "day" else LEDGER.c[by]
        sums = [sa.func.sum(LEDGER.c[name]).label(f"{name}_tokens") for name in _COUNTS]
        select = sa.select(
            group.label(by),
            sa.func.count(sa.distinct(LEDGER.c.request)).label("requests"),
            sa.func.count().label("hops"),
            *sums,
        )
        grouped = select.where(LEDGER.c.started >= since).group_by(group).order_by(group)
        with reading(self._engine) as connection:
            rows = connection.execute(grouped).mappings().all()
        return [{name: value if name == by else int(value) for name, value in row.items()} for row in rows]

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def _merged(new: Any) -> dict[str, Any]:
    """Return what becomes of a row that is told again: the greater counts, and what anybody measured."""
    old = LEDGER.c
    merged: dict[str, Any] = {name: _greater(old[name], new[name]) for name in _COUNTS}
    orphaned = old.outcome == Outcome.ORPHANED.value
    merged["outcome"] = sa.case((orphaned, new.outcome), else_=old.outcome)
    merged["duration_ms"] = sa.case((old.ttft_ms.is_(None), new.duration_ms), else_=old.duration_ms)
    merged["queue_ms"] = sa.func.coalesce(old.queue_ms, new.queue_ms)
    merged["ttft_ms"] = sa.func.coalesce(old.ttft_ms, new.ttft_ms)
    return merged


def _greater(one: Any, other: Any) -> Any:
    return sa.case((one >= other, one), else_=other)


def _day(engine: Engine) -> Any:
    """Return the UTC day of a row, as text."""
    if engine.dialect.name == "postgresql":
        return sa.func.to_char(sa.func.timezone("UTC", sa.func.to_timestamp(LEDGER.c.started)), "YYYY-MM-DD")
    return sa.func.strftime("%Y-%m-%d", LEDGER.c.started, "unixepoch")
