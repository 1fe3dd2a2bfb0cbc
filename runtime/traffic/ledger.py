"""Where a request's rows go: a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.core.metering.ledger import LedgerRow


class LedgerPort(Protocol):
    """Where rows go before the last byte of an answer does."""

    async def write(self, rows: Sequence[LedgerRow], ended: Sequence[str] = ()) -> None:
        """Return once ``rows`` are kept, or will be brought by the engines that they ran on.

        What was reserved under the names ``ended`` is released with it.
        """
        ...


class NoLedger:
    """Keeps nothing; for those who only walk chains."""

    async def write(self, rows: Sequence[LedgerRow], ended: Sequence[str] = ()) -> None:
        """Do nothing."""
