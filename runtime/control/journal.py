"""The journal as the controller sees it: asynchronous, behind a protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from runtime.core import events as ev
from runtime.core.audit import AuditEntry
from runtime.errors import HistoryLost, StoreUnavailable
from runtime.store.journal import Journal

_log = logging.getLogger(__name__)

STORE_RETRY_SECONDS = 1.0
"""Pause before a store that did not answer is asked again."""


class JournalPort(Protocol):
    """Where durable events go before they count."""

    @property
    def epoch(self) -> int:
        """The epoch of the manager that writes, which no manager before it had."""
        ...

    async def replay(self) -> list[ev.Durable]:
        """Return every event from the first on. Raises StoreError: one is missing, or cannot be read."""
        ...

    async def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Write ``event`` as number ``revision``, with its audit entry.

        Raises Fenced if another manager has taken over.
        """
        ...

    async def note(self, entry: AuditEntry) -> None:
        """Write an audit entry that no event goes with. Raises Fenced."""
        ...


class StoredJournal:
    """The database's journal; each call runs in a thread, for SQLAlchemy's calls block."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def epoch(self) -> int:
        """The epoch that the journal was opened with."""
        return self._journal.epoch

    async def replay(self) -> list[ev.Durable]:
        """Return every event from the first on."""
        return await asyncio.to_thread(lambda: list(self._journal.replay()))

    async def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Write ``event``; it survives the machine once this returns."""
        await _until_it_answers(lambda: self._journal.append(revision, event, entry))

    async def note(self, entry: AuditEntry) -> None:
        """Write an audit entry."""
        await _until_it_answers(lambda: self._journal.note(entry))


async def _until_it_answers(write: Callable[[], None]) -> None:
    """Write, again and again while the store does not answer: until it does, nothing may count.

    Gateways go on by the table that they have; a manager that gave up would find no store either.
    """
    while True:
        try:
            await asyncio.to_thread(write)
        except StoreUnavailable as error:
            _log.warning("the journal waits for its store: %s", error)
            await asyncio.sleep(STORE_RETRY_SECONDS)
        else:
            return


class MemoryJournal:
    """A journal that a test can look into, and hand to a second controller as a restart does."""

    def __init__(self) -> None:
        self.epoch = 1
        self.lines: list[str] = []
        self.entries: list[AuditEntry] = []

    async def replay(self) -> list[ev.Durable]:
        """Return every event from the first on."""
        return [ev.decode(line) for line in self.lines]

    async def note(self, entry: AuditEntry) -> None:
        """Keep the entry."""
        self.entries.append(entry)

    async def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Keep the event as the text that a database would keep."""
        if revision != len(self.lines) + 1:
            raise HistoryLost(f"revision {revision} does not follow {len(self.lines)}")
        self.lines.append(ev.encode(event))
        if entry is not None:
            self.entries.append(entry)
