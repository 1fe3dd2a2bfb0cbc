"""The caps in the database, changed within a transaction of whoever changes them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from runtime.core.budgets.budget import Cap, CapKind, Per, Unit, Window
from runtime.store.sql.database import Turn, insert_into, take_turn_alone
from runtime.store.tables import CAPS, COUNTERS, RESERVATIONS

_SAME = ("tenant", "key", "per", "unit", "window")
"""Two caps of which all this is equal are one."""

_ID = (COUNTERS.c.cap, COUNTERS.c.subject, COUNTERS.c.window)
_THIS = [column == sa.bindparam(f"of_{column.name}") for column in _ID]


def every_cap(connection: Connection) -> list[Cap]:
    """Return all caps, the oldest first."""
    return [_cap(row) for row in connection.execute(sa.select(CAPS).order_by(CAPS.c.id))]


def put_cap(connection: Connection, cap: Cap) -> Cap | None:
    """Add a cap, or replace the one that caps the same, which goes on counting; return what it replaced."""
    take_turn_alone(connection, Turn.LEDGER)
    row = {
        **{name: getattr(cap, name) for name in ("tenant", "key", "limit", "hard")},
        **{name: getattr(cap, name).value for name in ("per", "unit", "window", "kind")},
    }
    before = _one(connection, sa.and_(*(CAPS.c[name] == row[name] for name in _SAME)))
    insert = insert_into(connection.engine, CAPS).values(row)
    changed = {name: insert.excluded[name] for name in ("limit", "kind", "hard")}
    connection.execute(insert.on_conflict_do_update(index_elements=list(_SAME), set_=changed))
    if before is not None and before.limit != cap.limit:
        # Of another limit the same spending is another share, of which nobody has been warned.
        held = _hold_counters(connection, before.id)
        if held:
            connection.execute(sa.update(COUNTERS).where(*_THIS).values(warned=0), held)
    return before


def drop_cap(connection: Connection, cap: int) -> Cap | None:
    """Remove a cap and its counters; return it, or None if there was none."""
    take_turn_alone(connection, Turn.LEDGER)
    before = _one(connection, CAPS.c.id == cap)
    connection.execute(sa.delete(CAPS).where(CAPS.c.id == cap))
    connection.execute(sa.delete(RESERVATIONS).where(RESERVATIONS.c.cap == cap))
    held = _hold_counters(connection, cap)
    if held:
        connection.execute(sa.delete(COUNTERS).where(*_THIS), held)
    return before


def _hold_counters(connection: Connection, cap: int) -> list[dict[str, Any]]:
    """Take all counters of a cap in the order in which everybody takes several; return which they are.

    Settlements are kept out by the turn; reservations could otherwise deadlock with this change. Counters
    made meanwhile are left out, for they would be locked last: those of a removed cap are left to the sweep.
    """
    subject = COUNTERS.c.subject  # as Python sorts it; SQLite knows no collation of this name
    in_order = sa.collate(subject, "C") if connection.dialect.name == "postgresql" else subject
    all_of_it = sa.select(*_ID).where(COUNTERS.c.cap == cap).order_by(in_order, COUNTERS.c.window)
    rows = connection.execute(all_of_it.with_for_update()).mappings()
    return [{f"of_{name}": value for name, value in row.items()} for row in rows]


def _one(connection: Connection, which: sa.ColumnElement[bool]) -> Cap | None:
    row = connection.execute(sa.select(CAPS).where(which).with_for_update()).one_or_none()
    return None if row is None else _cap(row)


def _cap(row: Row[tuple[object, ...]]) -> Cap:
    columns = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    return Cap(
        id=columns["id"],
        tenant=columns["tenant"],
        key=columns["key"],
        per=Per(columns["per"]),
        unit=Unit(columns["unit"]),
        window=Window(columns["window"]),
        limit=columns["limit"],
        kind=CapKind(columns["kind"]),
        hard=columns["hard"],
    )
