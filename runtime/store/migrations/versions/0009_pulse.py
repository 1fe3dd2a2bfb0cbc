"""What health writes to see whether the store keeps anything."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table and its one row."""
    table = op.create_table(
        "pulse",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
        sa.Column("filler", sa.LargeBinary, nullable=False),
    )
    op.bulk_insert(table, [{"only": 1, "beats": 0, "filler": b""}])
