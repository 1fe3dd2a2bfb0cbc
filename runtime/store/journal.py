"""The journal: every durable event of a swap, in order, in a database.

It is the truth about releases: a manager that starts reads it whole and folds it again. Writers are
fenced by epoch: a manager takes a later epoch when it opens the journal, and an append by an older
one is refused, so that two managers that overlap for a moment cannot both write.

The journal does not grow for ever: now and then the state that its events have led to is put in their place.

A store may lose what was committed last: by a restore, or by a fail-over to a server that had not got it
yet. So an event is written only right behind the one before it, and no epoch comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from runtime.core.swap import events as ev
from runtime.core.swap import snapshot
from runtime.core.swap.state import ControlState
from runtime.core.views.audit import AuditEntry
from runtime.errors import Fenced, HistoryLost, StoreError
from runtime.store.audit import note
from runtime.store.contents import Contents, fetching
from runtime.store.sql.database import reading, writing
from runtime.store.sql.patience import REPORT_SECONDS
from runtime.store.tables import AUDIT, EPOCH, JOURNAL, SNAPSHOT

_BEGINNING = 1_767_225_600
"""The seconds that epochs count from: the beginning of 2026."""

_EPOCH = sa.select(EPOCH.c.epoch).where(EPOCH.c.id == 1)


class Journal:
    """One manager's hold on the journal. Calls block: make them from a thread."""

    def __init__(self, engine: Engine, wall: Callable[[], float] = time.time) -> None:
        """Open it, and fence off whoever has it open; ``wall`` is the clock. Raises StoreUnavailable."""
        self._engine = engine
        self.epoch = self._take_epoch(int(wall()) - _BEGINNING)

    def _take_epoch(self, now: int) -> int:
        """Take the next epoch, or the time if that is later: one whose taking was lost is not taken again."""
        # The row is there: the migration that makes the table puts it in, so that no two can insert it.
        with writing(self._engine) as connection:
            connection.execute(sa.update(EPOCH).where(EPOCH.c.id == 1).values(epoch=EPOCH.c.epoch + 1))
            taken = max(now, int(connection.execute(_EPOCH).scalar_one()))
            connection.execute(sa.update(EPOCH).where(EPOCH.c.id == 1).values(epoch=taken))
            return taken

    def begins(self) -> ControlState:
        """Return the state that the events to ``replay`` begin from.

        Raises:
            StoreError: it cannot be read.

        """
        with reading(self._engine, REPORT_SECONDS) as connection:
            row = connection.execute(sa.select(SNAPSHOT)).one_or_none()
            try:
                return ControlState() if row is None else snapshot.decode(row.state, fetching(connection))
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"the journal's beginning, event {row.revision if row else 0}, cannot be read: {error}; "
                    "another Interlock has written it: run that one, or set INTERLOCK_STORE_URL to another "
                    "database"
                ) from error

    def last(self) -> int:
        """Return the number of the last event."""
        with reading(self._engine) as connection:
            return self._last(connection)

    def replay(self) -> Iterator[ev.Durable]:
        """Yield every event after the beginning.

        Raises:
            StoreError: one is missing though there are later ones, or cannot be read.

        """
        with reading(self._engine, REPORT_SECONDS) as connection:
            begins = connection.execute(sa.select(SNAPSHOT.c.revision)).scalar_one_or_none() or 0
            rows = connection.execute(sa.select(JOURNAL).order_by(JOURNAL.c.revision)).all()
            fetch = fetching(connection)
        for expected, row in enumerate(rows, start=begins + 1):
            if row.revision != expected:
                raise StoreError(_gap(expected, rows[-1].revision))
            try:
                yield ev.decode(row.event, fetch)
            except ValueError as error:
                raise StoreError(
                    f"event {expected} of the journal cannot be read: {error}; another Interlock has written "
                    "it: run that one, or set INTERLOCK_STORE_URL to another database"
                ) from error

    def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Write ``event`` as number ``revision``, and its audit entry, or neither.

        It counts once this returns.

        Raises:
            Fenced: a newer manager has taken the journal over.
            HistoryLost: the event before it is not there any more, or another one is in its place.

        """
        with writing(self._engine) as connection, self._fence(connection):
            text = ev.encode(event, Contents(connection).put_away)
            row = {"revision": revision, "epoch": self.epoch, "event": text}
            last = self._last(connection)
            if last == revision and self._is_written(connection, row):
                return
            if last != revision - 1:
                raise HistoryLost(
                    f"the store holds {last} events of the journal, and this manager has written "
                    f"{revision - 1}: it was restored, or has failed over to a server that had not got them; "
                    "this manager stops, and the next one reads what is there"
                )
            connection.execute(sa.insert(JOURNAL).values(row))
            if entry is not None:
                note(connection, entry)

    def compact(self, state: ControlState) -> None:
        """Put ``state``, which the last event has led to, in the place of all events. It is that, or nothing.

        Raises:
            Fenced: a newer manager has taken the journal over.
            HistoryLost: the store does not hold that event, or holds later ones.

        """
        with writing(self._engine) as connection, self._fence(connection):
            last = self._last(connection)
            if last != state.revision:
                raise HistoryLost(f"the store holds {last} events, and this is the state of {state.revision}")
            contents = Contents(connection)
            text = snapshot.encode(state, contents.put_away)
            connection.execute(sa.delete(SNAPSHOT))
            connection.execute(sa.insert(SNAPSHOT).values(only=1, revision=last, state=text))
            connection.execute(sa.delete(JOURNAL).where(JOURNAL.c.revision <= last))
            contents.forget_others()

    def _last(self, connection: Connection) -> int:
        last = connection.execute(sa.select(sa.func.max(JOURNAL.c.revision))).scalar_one_or_none()
        if last is None:
            last = connection.execute(sa.select(SNAPSHOT.c.revision)).scalar_one_or_none()
        return int(last or 0)

    def _is_written(self, connection: Connection, row: dict[str, Any]) -> bool:
        """Say whether this very row is there: a commit may succeed whose answer is lost."""
        found = connection.execute(sa.select(JOURNAL).where(JOURNAL.c.revision == row["revision"])).mappings()
        return [dict(known) for known in found] == [row]

    def note(self, entry: AuditEntry) -> None:
        """Write an entry of the audit log that no event goes with. Raises Fenced."""
        with writing(self._engine) as connection, self._fence(connection):
            note(connection, entry)

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        newest = sa.select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        with reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(newest).mappings()]

    @contextmanager
    def _fence(self, connection: Connection) -> Iterator[None]:
        """Hold the epoch's row for the transaction, so that a takeover waits or is seen."""
        mine = sa.update(EPOCH).where(EPOCH.c.id == 1, EPOCH.c.epoch == self.epoch)
        if connection.execute(mine.values(epoch=self.epoch)).rowcount == 1:
            yield
            return
        there = int(connection.execute(_EPOCH).scalar_one_or_none() or 0)
        if there < self.epoch:
            raise HistoryLost(
                f"the store is of epoch {there}, and this manager has begun epoch {self.epoch} in it: it was "
                "restored, or has failed over; this manager stops, and the next one reads what is there"
            )
        raise Fenced(f"epoch {self.epoch} is over: another manager has opened the journal, so this one stops")


def _gap(missing: int, last: int) -> str:
    return (
        f"the journal has no event {missing}, and later ones up to {last}: the store has lost some that a "
        f"manager had written. Restore a backup that has it; or delete the rows of its table journal whose "
        f"revision is above {missing}, to go on from event {missing - 1}"
    )
