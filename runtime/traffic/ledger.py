"""Writing the ledger from a gateway: rows of many requests in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from runtime.core.metering.ledger import LedgerRow
from runtime.traffic.batches import Batches

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.5
"""How long an answer's last byte waits for a store that does not answer; so much later than its deadline
it may come."""


class LedgerPort(Protocol):
    """Where rows go before the last byte of an answer does."""

    async def write(self, rows: Sequence[LedgerRow], ended: Sequence[str] = ()) -> None:
        """Return once ``rows`` are kept, or will be brought by the engines that they ran on.

        What was reserved under the names ``ended`` is released with it.
        """
        ...


class Book(Protocol):
    """A ledger whose calls block."""

    def write(self, rows: Iterable[LedgerRow], ended: Sequence[str] = ()) -> int:
        """Write ``rows`` in one transaction; return how many told anything new."""
        ...


class GroupCommit:
    """Writes what comes while one transaction runs with the next one."""

    def __init__(self, ledger: Book, thread: Executor) -> None:
        self._ledger = ledger
        self._batches = Batches(thread, self._write_all)

    async def write(self, rows: Sequence[LedgerRow], ended: Sequence[str] = ()) -> None:
        """Return once ``rows`` are in the ledger.

        If the store does not take them, the request goes on: the engines that they ran on have counted
        them, too, and the manager brings them in from there; reservations expire.
        """
        writing = asyncio.ensure_future(self._batches.put((rows, ended)))
        writing.add_done_callback(_seen)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.shield(writing)
        except TimeoutError:
            _log.warning("the store is slow: %d rows go out before they are written", len(rows))
        except Exception:  # noqa: BLE001 - whatever it is, the answer is there and is the client's
            _log.exception("could not write %d ledger rows; the manager collects them", len(rows))

    def _write_all(self, told: list[tuple[Sequence[LedgerRow], Sequence[str]]]) -> list[None]:
        rows = [row for rows, _ in told for row in rows]
        self._ledger.write(rows, [name for _, ended in told for name in ended])
        return [None] * len(told)

    async def close(self) -> None:
        """Return once everything is written."""
        await self._batches.close()


def _seen(writing: asyncio.Future[None]) -> None:
    """Take the error of a write that nobody waited for to its end."""
    if not writing.cancelled():
        writing.exception()


class NoLedger:
    """Keeps nothing; for those who only walk chains."""

    async def write(self, rows: Sequence[LedgerRow], ended: Sequence[str] = ()) -> None:
        """Do nothing."""
