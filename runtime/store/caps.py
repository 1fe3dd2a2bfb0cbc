"""The caps in the database, changed within a transaction of whoever changes them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from runtime.core.budget import Cap, Kind, Per, Unit, Window
from runtime.store.database import insert_into
from runtime.store.tables import CAPS, COUNTERS, RESERVATIONS

_SAME = ("tenant", "key", "per", "unit", "window")
"""Two caps of which all this is equal are one."""


def every_cap(connection: Connection) -> list[Cap]:
    """Return all caps, the oldest first."""
    return [_cap(row) for row in connection.execute(sa.select(CAPS).order_by(CAPS.c.id))]


def put_cap(connection: Connection, cap: Cap) -> Cap | None:
    """Add a cap, or replace the one that caps the same, which goes on counting; return what it replaced."""
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
        connection.execute(sa.update(COUNTERS).where(COUNTERS.c.cap == before.id).values(warned=0))
    return before


def drop_cap(connection: Connection, cap: int) -> Cap | None:
    """Remove a cap and its counters; return it, or None if there was none."""
    before = _one(connection, CAPS.c.id == cap)
    for table, column in ((CAPS, CAPS.c.id), (RESERVATIONS, RESERVATIONS.c.cap), (COUNTERS, COUNTERS.c.cap)):
        connection.execute(sa.delete(table).where(column == cap))
    return before


def _one(connection: Connection, which: sa.ColumnElement[bool]) -> Cap | None:
    row = connection.execute(sa.select(CAPS).where(which).with_for_update()).one_or_none()
    return None if row is None else _cap(row)


def _cap(row: Row[tuple[object, ...]]) -> Cap:
    told = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    return Cap(
        id=told["id"],
        tenant=told["tenant"],
        key=told["key"],
        per=Per(told["per"]),
        unit=Unit(told["unit"]),
        window=Window(told["window"]),
        limit=told["limit"],
        kind=Kind(told["kind"]),
        hard=told["hard"],
    )
