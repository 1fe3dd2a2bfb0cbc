"""Which installation a store is of. The migration that made the table has put the id in."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from runtime.core.swap.installation import Installation
from runtime.store.sql.database import reading
from runtime.store.tables import INSTALLATION


def installation_of(engine: Engine) -> Installation:
    """Return the installation whose store this is. Raises StoreUnavailable."""
    with reading(engine) as connection:
        row = connection.execute(sa.select(INSTALLATION.c.id, INSTALLATION.c.inherits)).one()
    return Installation(row.id, bool(row.inherits))
