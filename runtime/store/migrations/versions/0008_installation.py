"""The installation: the id that this store's Interlock carries in every name that it shares with others.

One whose journal is not empty has engine applications from before their names carried it.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table and its one row."""
    installation = op.create_table(
        "installation",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("inherits", sa.Boolean, nullable=False),
    )
    begun = op.get_bind().execute(sa.text("select 1 from journal limit 1")).first() is not None
    op.bulk_insert(installation, [{"only": 1, "id": uuid.uuid4().hex[:8], "inherits": begun}])
