"""What a store's counters hold, which the runtime reads only to change it."""

import sqlalchemy as sa

from runtime.core.budgets.budget import Counter
from runtime.store.sql.database import reading
from runtime.store.tables import COUNTERS


def counters_of(budgets, cap):
    """All counters of a cap, the newest window's first."""
    newest = sa.select(COUNTERS).where(COUNTERS.c.cap == cap).order_by(COUNTERS.c.window.desc())
    with reading(budgets._engine) as connection:
        return [Counter(row.spent, row.reserved, row.warned) for row in connection.execute(newest)]
