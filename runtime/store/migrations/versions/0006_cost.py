"""What a hop's tokens cost, and what that came to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; what was spent before there were prices has cost nothing."""
    for name in ("prompt_price", "cached_price", "completion_price", "cost"):
        op.add_column("ledger", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
