"""The control state, and how alone it changes: an event is folded, journaled, and only then counts."""

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

_TELLING = "tell observers"
"""Under which name it is told that an observer broke."""

Observer = Callable[[ControlState, ControlState], None]
"""Hears of each change of the state, before and after, once it counts; what a start folds again is none.

What goes by a settled state alone (the table, what is waited for, effects) is brought in line as it settles.
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
        self._tell(before)

    async def note(self, entry: AuditEntry) -> None:
        """Write an audit entry that no event goes with. Raises Fenced."""
        await self._journal.note(entry)

    async def shorten_journal(self) -> None:
        """Shorten the journal, if it is long. Raises Fenced."""
        await self._journal.shorten(self.state)

    def _tell(self, before: ControlState) -> None:
        """Tell the observers that the state is another; one that breaks is told to health, and no other."""
        for observer in self.observers:
            try:
                observer(before, self.state)
            except Exception as error:  # noqa: BLE001 - the change counts, whatever becomes of who is told
                _log.error("an observer broke on a change of the state")
                self._loops.broke(_TELLING, error)


def _log_moves(before: ControlState, after: ControlState) -> None:
    for line in moves(before, after):
        _log.info("%s", line)
