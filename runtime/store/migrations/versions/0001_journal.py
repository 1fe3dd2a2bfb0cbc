"""The journal, its epoch and the audit log.

The first databases were made without versions. Such a one has these tables, and they are taken as
they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make what is missing, and the epoch's one row, which managers count up."""
    connection = op.get_bind()
    made = set(sa.inspect(connection).get_table_names())
    for name, columns in _TABLES.items():
        if name not in made:
            op.create_table(name, *columns)
    if connection.execute(sa.text("select id from epoch where id = 1")).first() is None:
        op.execute("insert into epoch (id, epoch) values (1, 0)")


_TABLES: dict[str, tuple[sa.Column[object], ...]] = {
    "journal": (
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
    ),
    "audit": (
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("from_release", sa.Integer),
        sa.Column("to_release", sa.Integer),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    ),
    "epoch": (
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, nullable=False),
    ),
}
