"""The journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from runtime.core.swap import events as ev
from runtime.core.swap.state import ControlState
from runtime.core.views.audit import AuditEntry
from runtime.errors import StoreUnavailable
from runtime.store.asynchronous.threads import in_thread
from runtime.store.journal import Journal

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

RETRY_SECONDS = 1.0
"""Pause before a store that did not answer is asked again."""


class AsyncJournal:
    """One manager's hold on the journal. What a swap waits for is asked for until the store answers."""

    def __init__(self, journal: Journal, thread: Executor | None = None) -> None:
        self._journal = journal
        self._thread = thread

    @property
    def epoch(self) -> int:
        """The epoch that the journal was opened with."""
        return self._journal.epoch

    async def begins(self) -> ControlState:
        """Return the state that the journal begins from."""
        return await self._until_it_answers(self._journal.begins)

    async def replay(self) -> list[ev.Durable]:
        """Return every event after that."""
        return await self._until_it_answers(lambda: list(self._journal.replay()))

    async def last(self) -> int:
        """Return the number of the last event."""
        return await self._until_it_answers(self._journal.last)

    async def compact(self, state: ControlState) -> None:
        """Put ``state`` in the place of all events. Raises StoreUnavailable, and nothing was done."""
        await in_thread(self._thread, self._journal.compact, state)

    async def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Write ``event``; it survives the machine once this returns."""
        await self._until_it_answers(lambda: self._journal.append(revision, event, entry))

    async def note(self, entry: AuditEntry) -> None:
        """Write an audit entry."""
        await self._until_it_answers(lambda: self._journal.note(entry))

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first. Raises StoreUnavailable."""
        return await in_thread(self._thread, self._journal.audit, limit)

    async def _until_it_answers(self, call: Callable[[], _T]) -> _T:
        """Read or write, and retry while the store does not answer: until it does, nothing may take effect.

        Gateways go on by the table that they have; a manager that gave up would find no store either.
        """
        while True:
            try:
                return await in_thread(self._thread, call)
            except StoreUnavailable as error:
                _log.warning("the journal cannot be read or written, trying again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
