"""The ledger's sums by the hour, by which usage is told, and which outlast its rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_REQUESTS = ("requests", "requests_by_step", "requests_by_engine", "requests_by_outcome")
_COUNTS = ("hops", "prompt", "cached", "completion", "reasoning", "cost")


def upgrade() -> None:
    """Make the tables, and the index by which rows are found: when their request began.

    Rows of which that was not known, as warm-ups', begin with their hop, as those that come do.
    """
    ledger = sa.table("ledger", sa.column("admitted"), sa.column("started"))
    op.execute(sa.update(ledger).where(ledger.c.admitted == 0).values(admitted=ledger.c.started))
    op.drop_index("ix_ledger_started", "ledger")
    op.create_index("ix_ledger_admitted", "ledger", ["admitted"])
    op.create_table(
        "ledger_sums",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("tenant", "key", "chain", "step")),
        sa.Column("release", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("engine", "purpose", "outcome")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in (*_REQUESTS, *_COUNTS)),
    )
    op.create_table(
        "session_sums",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("session", sa.Text, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("requests", *_COUNTS)),
    )
    op.create_table(
        "ledger_late",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("edition", sa.BigInteger, nullable=False),
    )
    horizon = op.create_table(
        "ledger_horizon",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("summed", sa.BigInteger, nullable=False),
        sa.Column("kept", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(horizon, [{"only": 1, "summed": 0, "kept": 0}])
