"""Which version the store's tables are of, and which one this code works with."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

HEAD = "0013"
"""The version of the tables that this code works with: the newest in ``runtime/store/migrations``."""

_VERSION = sa.table("alembic_version", sa.column("version_num"))


def version_of(connection: Connection) -> str | None:
    """Return the version of the tables in the database; None of one that has none yet."""
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    version = connection.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()
    return None if version is None else str(version)
