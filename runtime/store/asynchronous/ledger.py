"""The ledger: as the manager and operators ask for it, and as requests write it, many in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from runtime.core.metering.ledger import LedgerRow
from runtime.store.asynchronous.batches import Batches
from runtime.store.asynchronous.threads import in_thread
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.spending.ledger_sums import LedgerSums

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.5
"""How long an answer's last byte waits for a store that does not answer; it may be so much later than its
deadline."""


class AsyncLedger:
    """The ledger, one call after the other. Every call may raise StoreUnavailable."""

    def __init__(self, ledger: Ledger, thread: Executor | None = None) -> None:
        self._ledger = ledger
        self._thread = thread

    async def write(self, rows: Sequence[LedgerRow]) -> int:
        """Write those of ``rows`` that are new; return how many."""
        return await in_thread(self._thread, self._ledger.write, rows)

    async def sweep(self, lag: float) -> int:
        """Release what is reserved and expired ``lag`` seconds ago; return how many reservations it was."""
        return await in_thread(self._thread, self._ledger.sweep, lag)

    async def usage(self, by: str, since: float) -> list[dict[str, Any]]:
        """Return requests, hops and tokens since then (seconds since the Unix epoch), by group."""
        return await in_thread(self._thread, self._ledger.usage, by, since)


class GroupCommit:
    """The ledger as requests write it: what comes while one transaction runs is written by the next one."""

    def __init__(self, ledger: Ledger, thread: Executor) -> None:
        self._ledger = ledger
        self._batches = Batches(thread, self._write_all)

    async def write(self, rows: Sequence[LedgerRow], ended: Sequence[str] = ()) -> None:
        """Return once ``rows`` are in the ledger, and what was reserved as ``ended`` is released.

        If the store does not take them, the request goes on: the engines that they ran on have counted
        them, too, and the manager brings them in from there; reservations expire.
        """
        writing = asyncio.ensure_future(self._batches.put((rows, ended)))
        writing.add_done_callback(_seen)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.shield(writing)
        except TimeoutError:
            _log.warning("the store is slow: an answer ends before its %d ledger rows are written", len(rows))
        except Exception:  # noqa: BLE001 - whatever it is, the answer is there and is the client's
            _log.exception("could not write %d ledger rows; the manager collects them", len(rows))

    def _write_all(self, batch: list[tuple[Sequence[LedgerRow], Sequence[str]]]) -> list[None]:
        rows = [row for rows, _ in batch for row in rows]
        self._ledger.write(rows, [name for _, ended in batch for name in ended])
        return [None] * len(batch)

    async def close(self) -> None:
        """Return once everything is written."""
        await self._batches.close()


def _seen(writing: asyncio.Future[None]) -> None:
    """Retrieve the error of a write that nobody awaited to its end: asyncio would complain."""
    if not writing.cancelled():
        writing.exception()


class AsyncLedgerSums:
    """The ledger's sums, and what is older than it is kept, by the store's clock."""

    def __init__(self, sums: LedgerSums, budgets: Budgets, thread: Executor | None = None) -> None:
        self._sums = sums
        self._budgets = budgets
        self._thread = thread

    async def keep(self) -> None:
        """Make the sums that are due, and delete what is due. Raises StoreUnavailable."""
        await in_thread(self._thread, lambda: self._sums.keep(self._budgets.now()))
