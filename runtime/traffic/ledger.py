"""Writing the ledger from a gateway: rows of many requests in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from runtime.core.ledger import LedgerRow
from runtime.errors import StoreUnavailable

_log = logging.getLogger(__name__)


class LedgerPort(Protocol):
    """Where rows go before the last byte of an answer does."""

    async def write(self, rows: Sequence[LedgerRow]) -> None:
        """Return once ``rows`` are kept, or will be brought by the engines that they ran on."""
        ...


class Book(Protocol):
    """A ledger whose calls block."""

    def write(self, rows: Iterable[LedgerRow]) -> int:
        """Write ``rows`` in one transaction; return how many told anything new."""
        ...


class GroupCommit:
    """Writes what comes while one transaction runs with the next one, in a thread of its own.

    Alone, a request waits for one transaction; under load, for at most two, however many others there are.
    """

    def __init__(self, ledger: Book) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._waiting: list[LedgerRow] = []
        self._next: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def write(self, rows: Sequence[LedgerRow]) -> None:
        """Return once ``rows`` are in the ledger.

        If the store does not take them, the request goes on: the engines that they ran on have counted
        them, too, and the manager brings them in from there.
        """
        self._waiting.extend(rows)
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        written = self._next
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await asyncio.shield(written)

    async def _write_all(self) -> None:
        while self._next is not None:
            rows, written = self._waiting, self._next
            self._waiting, self._next = [], None
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.write, rows)
            except StoreUnavailable:
                _log.exception("the ledger took %d rows not; the engines will bring them in", len(rows))
            written.set_result(None)
        self._writing = None

    async def close(self) -> None:
        """Write what waits, then end the thread."""
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()


class NoLedger:
    """Keeps nothing; for those who only walk chains."""

    async def write(self, rows: Sequence[LedgerRow]) -> None:
        """Do nothing."""
