"""The ledger: one row per hop."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table, and the index by which usage is asked for: since when."""
    op.create_table(
        "ledger",
        sa.Column("hop", sa.Text, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("release", sa.Integer, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("started", sa.Float, nullable=False),
        sa.Column("admitted", sa.Float, nullable=False),
        sa.Column("prompt", sa.BigInteger, nullable=False),
        sa.Column("cached", sa.BigInteger, nullable=False),
        sa.Column("completion", sa.BigInteger, nullable=False),
        sa.Column("reasoning", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("queue_ms", sa.Float),
        sa.Column("ttft_ms", sa.Float),
        sa.Column("duration_ms", sa.Float, nullable=False),
    )
    op.create_index("ix_ledger_started", "ledger", ["started"])
