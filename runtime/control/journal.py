"""The journal as the controller sees it: a port, how long it gets, and one in memory."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from runtime.core.swap import events as ev
from runtime.core.swap import snapshot
from runtime.core.swap.state import ControlState
from runtime.core.views.audit import AuditEntry
from runtime.errors import Fenced, HistoryLost
from runtime.loops import LoopWatch

_log = logging.getLogger(__name__)

EVENTS_KEPT = 500
"""How many events a journal may have before it is made shorter: those of some forty swaps."""


class JournalPort(Protocol):
    """Where durable events go before they count."""

    @property
    def epoch(self) -> int:
        """The epoch of the manager that writes, which no manager before it had."""
        ...

    async def begins(self) -> ControlState:
        """Return the state that the events to ``replay`` begin from. Raises StoreError: it cannot be read."""
        ...

    async def replay(self) -> list[ev.Durable]:
        """Return every event after that. Raises StoreError: one is missing, or cannot be read."""
        ...

    async def last(self) -> int:
        """Return the number of the last event."""
        ...

    async def compact(self, state: ControlState) -> None:
        """Put ``state``, which the last event has led to, in the place of all events.

        Raises StoreUnavailable: nothing was done. Raises Fenced.
        """
        ...

    async def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Write ``event`` as number ``revision``, with its audit entry.

        Raises Fenced if another manager has taken over.
        """
        ...

    async def note(self, entry: AuditEntry) -> None:
        """Write an audit entry that belongs to no event. Raises Fenced."""
        ...


class Length:
    """Keeps a journal short, so that a start is quick: at times its events' state is put in their place."""

    def __init__(self, journal: JournalPort, loops: LoopWatch) -> None:
        self._journal = journal
        self._loops = loops
        self.begins = 0
        """Revision that the journal begins from, or at which it could not be made shorter."""

    async def shorten_if_long(self, state: ControlState) -> None:
        """Shorten the journal, which ``state`` has just been settled by, if it is long. Raises Fenced."""
        if state.revision - self.begins < EVENTS_KEPT:
            return
        self.begins = state.revision
        try:
            await self._journal.compact(state)
            _log.info("journal %d: the state stands for all events up to here", state.revision)
        except Fenced:
            raise
        except Exception as error:  # noqa: BLE001 - nothing was done: it is tried again when it has grown as much
            self._loops.broke("shorten the journal", error)


class MemoryJournal:
    """A journal that a test can look into, and hand to a second controller as a restart does."""

    def __init__(self) -> None:
        self.epoch = 1
        self.beginning = snapshot.encode(ControlState())
        self.lines: list[str] = []
        self.entries: list[AuditEntry] = []

    async def begins(self) -> ControlState:
        """Return the state that the journal begins from."""
        return snapshot.decode(self.beginning)

    async def last(self) -> int:
        """Return the number of the last event."""
        return (await self.begins()).revision + len(self.lines)

    async def compact(self, state: ControlState) -> None:
        """Put ``state`` in the place of all events."""
        if state.revision != await self.last():
            raise HistoryLost(f"revision {state.revision} is not the last one")
        self.beginning, self.lines = snapshot.encode(state), []

    async def replay(self) -> list[ev.Durable]:
        """Return every event after the beginning."""
        return [ev.decode(line) for line in self.lines]

    async def note(self, entry: AuditEntry) -> None:
        """Keep the entry."""
        self.entries.append(entry)

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries, newest first."""
        return [entry.as_json() for entry in reversed(self.entries[-limit:])]

    async def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Keep the event as the text that a database would keep."""
        last = await self.last()
        if revision != last + 1:
            raise HistoryLost(f"revision {revision} does not follow {last}")
        self.lines.append(ev.encode(event))
        if entry is not None:
            self.entries.append(entry)
