"""The journal as the controller's loop writes it: read again at a start, surely written, kept short."""

from __future__ import annotations

import logging
from dataclasses import replace

from runtime.control.journal import JournalPort, Length
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.state import ControlState
from runtime.core.views.audit import AuditEntry
from runtime.errors import Fenced, IllegalTransition
from runtime.loops import LoopWatch

_log = logging.getLogger(__name__)


class JournalWriter:
    """Writes durable events, each right behind the one before it."""

    def __init__(self, journal: JournalPort, loops: LoopWatch) -> None:
        self.journal = journal
        self._length = Length(journal, loops)

    async def replayed(self) -> ControlState:
        """Return the state that the journal has led to."""
        state = await self.journal.begins()
        self._length.begins = state.revision
        for event in await self.journal.replay():
            state = _folded_again(state, event)
        return state

    async def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None) -> None:
        """Write an event. If that breaks in a way that leaves open whether it was, the journal is read."""
        try:
            await self.journal.append(revision, event, entry)
        except Fenced:
            raise
        except Exception:
            there = await self.journal.last()
            if there == revision - 1:
                raise
            if there != revision:
                message = f"the journal has {there} events where this manager has folded {revision - 1}"
                raise Fenced(f"{message}: it stops, and another one reads it anew") from None
            _log.exception("event %d was written all the same", revision)

    async def note(self, entry: AuditEntry) -> None:
        """Write an audit entry that belongs to no event."""
        await self.journal.note(entry)

    async def shorten(self, state: ControlState) -> None:
        """Shorten the journal, which ``state`` has just been settled by, if it is long."""
        await self._length.shorten_if_long(state)


def _folded_again(state: ControlState, event: ev.Durable) -> ControlState:
    """Return the state after an event of the journal; one that does not fit any more is only counted.

    When it was written it did: an older Interlock's rules were others. What the cluster has is seen next.
    """
    try:
        return fold(state, event)
    except IllegalTransition as error:
        _log.error("journal %d does not fit any more: %s: %s", state.revision + 1, line_of(event), error)
        return replace(state, revision=state.revision + 1)


def line_of(event: ev.Event) -> str:
    """Return an event as a log line: content is known by its digest, not by its text."""
    shown = event.model_dump(exclude={"at", "content", "type"}, exclude_none=True)
    return f"{type(event).__name__} {shown}"
