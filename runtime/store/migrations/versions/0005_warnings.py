"""What of its cap's warning shares a counter has passed, so that each is warned of once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; of what has been passed before, the next spending warns."""
    op.add_column("counters", sa.Column("warned", sa.Integer, nullable=False, server_default="0"))
