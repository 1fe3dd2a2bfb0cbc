"""Budgets and limits, how they stand, and what is reserved of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables, and the index by which reservations are found that nobody will release."""
    op.create_table(
        "caps",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("per", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("window", sa.Text, nullable=False),
        sa.Column("limit", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("hard", sa.Boolean, nullable=False),
        sa.UniqueConstraint("tenant", "key", "per", "unit", "window", name="one_cap"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "counters",
        sa.Column("cap", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("window", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "reservations",
        sa.Column("call", sa.Text, primary_key=True),
        sa.Column("cap", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("window", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_index("ix_reservations_expires", "reservations", ["expires"])
