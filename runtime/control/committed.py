"""The control state and the only way to change it: an event is folded, journaled, and only then counts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from runtime.control.journal import JournalPort
from runtime.control.journal_writer import JournalWriter, line_of
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.state import ControlState
from runtime.core.views.audit import AuditEntry, entry_of
from runtime.core.views.progress import moves
from runtime.errors import IllegalTransition
from runtime.loops import LoopWatch

_log = logging.getLogger(__name__)

_NOTIFY = "tell observers"
"""The name of the loop in health and metrics when an observer breaks."""

Observer = Callable[[ControlState, ControlState], None]
"""Called with the state before and after each change, once that counts; not for events replayed at a start.

What depends on a settled state alone (the table, the log of waits, effects) is updated when it settles.
"""


class CommittedState:
    """Holds the state. The controller alone commits to it."""

    def __init__(self, journal: JournalPort, loops: LoopWatch, *observers: Observer) -> None:
        self.state = ControlState()
        self._journal = JournalWriter(journal, loops)
        self.observers: tuple[Observer, ...] = (_log_moves, *observers)
        self._loops = loops

    async def replay(self) -> None:
        """Take up the state that the journal has led to."""
        self.state = await self._journal.replayed()

    async def commit(self, event: ev.Event) -> None:
        """Let an event count; one that does not fit the state is left out. Raises Fenced."""
        try:
            folded = fold(self.state, event)
        except IllegalTransition:
            _log.exception("event %s does not fit the state and is left out", type(event).__name__)
            return
        if isinstance(event, ev.Durable):
            await self._journal.append(folded.revision, event, entry_of(event, self.state, folded))
            _log.info("journal %d: %s", folded.revision, line_of(event))
        before, self.state = self.state, folded
        self._notify(before)

    async def note(self, entry: AuditEntry) -> None:
        """Write an audit entry that belongs to no event. Raises Fenced."""
        await self._journal.note(entry)

    async def shorten_journal(self) -> None:
        """Shorten the journal, if it is long. Raises Fenced."""
        await self._journal.shorten(self.state)

    def _notify(self, before: ControlState) -> None:
        """Notify the observers of a change. One that breaks is reported to health; the others still run."""
        for observer in self.observers:
            try:
                observer(before, self.state)
            except Exception as error:  # noqa: BLE001 - the change counts, whatever an observer does
                _log.error("an observer failed on a change of the state")
                self._loops.broke(_NOTIFY, error)


def _log_moves(before: ControlState, after: ControlState) -> None:
    for line in moves(before, after):
        _log.info("%s", line)
