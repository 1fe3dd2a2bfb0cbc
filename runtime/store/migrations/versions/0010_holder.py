"""The holder: which manager works on the store, and that it still does."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table and its one row: nobody holds the store."""
    holder = op.create_table(
        "holder",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(holder, [{"only": 1, "holder": "", "beats": 0}])
