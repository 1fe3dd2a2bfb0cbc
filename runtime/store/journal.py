"""The journal: every durable event of a swap, in order, in a database.

It is the truth about releases: a manager that starts reads it whole and folds it again. Writers are
fenced by epoch: a manager takes the next epoch when it opens the journal, and an append by an older
one is refused, so that two managers that overlap for a moment cannot both write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url

from runtime.core import events as ev
from runtime.core.audit import AuditEntry
from runtime.errors import Fenced

METADATA = sa.MetaData()
"""All tables of the store."""

_JOURNAL = sa.Table(
    "journal",
    METADATA,
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
)

_AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("from_release", sa.Integer),
    sa.Column("to_release", sa.Integer),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)

_EPOCH = sa.Table(
    "epoch",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
)


def open_store(url: str, *, survives_power_cut: bool = True) -> Engine:
    """Return a database engine for ``url``, its tables made if they were missing.

    SQLite runs in WAL mode. What is committed survives the death of any process; it survives a power cut
    only with full synchronisation, which costs a commit some milliseconds.
    """
    parsed = make_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database and parsed.database != ":memory:":
        Path(parsed.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
        parsed = parsed.set(database=str(Path(parsed.database).expanduser()))
    engine = sa.create_engine(parsed)
    if sqlite:
        level = "FULL" if survives_power_cut else "NORMAL"
        sa.event.listen(engine, "connect", lambda connection, _: _tune_sqlite(connection, level))
    METADATA.create_all(engine)
    return engine


def _tune_sqlite(connection: sa.PoolProxiedConnection, level: str) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", f"synchronous={level}", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class Journal:
    """One manager's hold on the journal. Calls block: make them from a thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.epoch = self._take_epoch()

    def _take_epoch(self) -> int:
        with self._engine.begin() as connection:
            updated = connection.execute(
                sa.update(_EPOCH).where(_EPOCH.c.id == 1).values(epoch=_EPOCH.c.epoch + 1)
            )
            if updated.rowcount == 0:
                connection.execute(sa.insert(_EPOCH).values(id=1, epoch=1))
            return int(connection.execute(sa.select(_EPOCH.c.epoch).where(_EPOCH.c.id == 1)).scalar_one())

    def replay(self) -> Iterator[ev.Durable]:
        """Yield every event from the first on."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_JOURNAL.c.event).order_by(_JOURNAL.c.revision))
            for (text,) in rows:
                yield ev.decode(text)

    def append(self, revision: int, event: ev.Durable, entry: AuditEntry | None = None) -> None:
        """Write ``event`` as number ``revision``, and what the audit log says of it, or neither.

        It counts once this returns.

        Raises:
            Fenced: a newer manager has taken the journal over.

        """
        with self._engine.begin() as connection, self._fence(connection):
            connection.execute(
                sa.insert(_JOURNAL).values(revision=revision, epoch=self.epoch, event=ev.encode(event))
            )
            if entry is not None:
                connection.execute(sa.insert(_AUDIT).values(**entry.as_json()))

    def note(self, entry: AuditEntry) -> None:
        """Write an entry of the audit log that no event goes with. Raises Fenced."""
        with self._engine.begin() as connection, self._fence(connection):
            connection.execute(sa.insert(_AUDIT).values(**entry.as_json()))

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        newest = sa.select(_AUDIT).order_by(_AUDIT.c.id.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(newest).mappings()]

    @contextmanager
    def _fence(self, connection: Connection) -> Iterator[None]:
        """Hold the epoch's row for the transaction, so that a takeover waits or is seen."""
        mine = sa.update(_EPOCH).where(_EPOCH.c.id == 1, _EPOCH.c.epoch == self.epoch)
        if connection.execute(mine.values(epoch=self.epoch)).rowcount != 1:
            raise Fenced(
                f"epoch {self.epoch} is over: another manager has opened the journal, so this one stops"
            )
        yield

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()
