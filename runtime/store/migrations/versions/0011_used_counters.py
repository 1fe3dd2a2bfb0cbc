"""When a counter was used last, by which it is forgotten; limits of concurrent requests have no window."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_CAPS = sa.table("caps", *(sa.column(name) for name in ("id", "tenant", "key", "per", "unit", "window")))
_COUNTERS = sa.table("counters", sa.column("cap"), sa.column("used"))
_RESERVATIONS = sa.table("reservations", sa.column("cap"))


def upgrade() -> None:
    """Add the column; counters that there are count as used now, and so are forgotten in time.

    A limit of concurrent requests began anew with each window, whatever was under way. What it has counted is
    let go of, once; of two that are one without their windows, the first stays.
    """
    op.add_column("counters", sa.Column("used", sa.Float, nullable=False, server_default="0"))
    now = (
        sa.func.unixepoch() if op.get_bind().dialect.name == "sqlite" else sa.extract("epoch", sa.func.now())
    )
    op.execute(sa.update(_COUNTERS).values(used=now))
    _give_up_windows()


def _give_up_windows() -> None:
    connection = op.get_bind()
    concurrent = (
        sa.select(_CAPS).where(_CAPS.c.unit == "concurrent").order_by(_CAPS.c.window != "total", _CAPS.c.id)
    )
    kept: set[tuple[str, str, str]] = set()
    for cap in connection.execute(concurrent).mappings().all():
        same = cap["tenant"], cap["key"], cap["per"]
        if cap["window"] == "total":
            kept.add(same)
            continue
        for counted in (_COUNTERS, _RESERVATIONS):
            connection.execute(sa.delete(counted).where(counted.c.cap == cap["id"]))
        this = _CAPS.c.id == cap["id"]
        if same in kept:
            connection.execute(sa.delete(_CAPS).where(this))
        else:
            connection.execute(sa.update(_CAPS).where(this).values(window="total"))
            kept.add(same)
