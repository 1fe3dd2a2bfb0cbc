"""What the processes of a simulated world share of a store: the real ledger and budgets, called in place."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Engine

from runtime.clock import Clock
from runtime.core.metering.ledger import LedgerRow
from runtime.store.asynchronous.budgets import AsyncBudgets, BatchedBudgets
from runtime.store.asynchronous.ledger import AsyncLedger, GroupCommit
from runtime.store.spending.budgets import Budgets, Observer
from runtime.store.spending.ledger import Ledger
from runtime.testing.inline import InlineExecutor


class StoredSpending:
    """Ledger and budgets in ``store``, and each of their faces."""

    def __init__(self, store: Engine, clock: Clock, observers: Sequence[Observer]) -> None:
        self.budgets = Budgets(store, clock, observers)
        self.ledger = Ledger(store, self.budgets)
        in_place = InlineExecutor()
        self.of_requests = BatchedBudgets(self.budgets, in_place)
        self.of_operators = AsyncBudgets(self.budgets, in_place)
        self.usage = AsyncLedger(self.ledger, in_place)

    def close(self) -> None:
        """Give the connections back."""
        self.ledger.close()


class GatewayLedger(GroupCommit):
    """One gateway's way to the ledger; once it is ``dead``, what it writes gets nowhere."""

    def __init__(self, spending: StoredSpending) -> None:
        super().__init__(spending.ledger, InlineExecutor())
        self.dead = False

    async def write(self, rows: Sequence[LedgerRow], ended: Sequence[str] = ()) -> None:
        """Return once ``rows`` are in the ledger, unless this gateway is dead."""
        if not self.dead:
            await super().write(rows, ended)
