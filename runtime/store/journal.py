"""The journal: every durable event of a swap, in order, in a database.

It is the truth about releases: a manager that starts reads it whole and folds it again. Writers are
fenced by epoch: a manager takes the next epoch when it opens the journal, and an append by an older
one is refused, so that two managers that overlap for a moment cannot both write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from runtime.core import events as ev
from runtime.core.audit import AuditEntry
from runtime.errors import Fenced
from runtime.store.audit import note
from runtime.store.database import reading, writing
from runtime.store.patience import REPORT_SECONDS
from runtime.store.tables import AUDIT, EPOCH, JOURNAL


class Journal:
    """One manager's hold on the journal. Calls block: make them from a thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.epoch = self._take_epoch()

    def _take_epoch(self) -> int:
        # The row is there: the migration that makes the table puts it in, so that no two can insert it.
        with writing(self._engine) as connection:
            connection.execute(sa.update(EPOCH).where(EPOCH.c.id == 1).values(epoch=EPOCH.c.epoch + 1))
            return int(connection.execute(sa.select(EPOCH.c.epoch).where(EPOCH.c.id == 1)).scalar_one())

    def replay(self) -> Iterator[ev.Durable]:
        """Yield every event from the first on."""
        with reading(self._engine, REPORT_SECONDS) as connection:
            rows = connection.execute(sa.select(JOURNAL.c.event).order_by(JOURNAL.c.revision))
            for (text,) in rows:
                yield ev.decode(text)

    def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Write ``event`` as number ``revision``, and what the audit log says of it, or neither.

        It counts once this returns.

        Raises:
            Fenced: a newer manager has taken the journal over.

        """
        row = {"revision": revision, "epoch": self.epoch, "event": ev.encode(event)}
        with writing(self._engine) as connection, self._fence(connection):
            if self._is_written(connection, row):
                return
            connection.execute(sa.insert(JOURNAL).values(row))
            if entry is not None:
                note(connection, entry)

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
        if connection.execute(mine.values(epoch=self.epoch)).rowcount != 1:
            raise Fenced(
                f"epoch {self.epoch} is over: another manager has opened the journal, so this one stops"
            )
        yield

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()
