"""The API keys in the database: hashes of secrets, never the secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from runtime.core.budgets.budget import Cap
from runtime.core.requests.keys import ApiKey
from runtime.core.views.audit import AuditEntry
from runtime.store.audit import note
from runtime.store.spending.caps import put_cap
from runtime.store.sql.database import reading, writing
from runtime.store.tables import KEYS


class KeyStore:
    """The keys. Calls block: make them from a thread. Each may raise StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, key: ApiKey, entry: AuditEntry, caps: Sequence[Cap] = ()) -> None:
        """Store ``key``, its ``caps`` and the audit entry: all or nothing."""
        with writing(self._engine) as connection:
            connection.execute(sa.insert(KEYS).values(**asdict(key)))
            for cap in caps:
                put_cap(connection, cap)
            note(connection, entry)

    def revoke(self, key_id: str, entry: AuditEntry) -> ApiKey | None:
        """End a key at the time of ``entry`` and return it; None if there is no such key.

        A key that has been revoked stays as it is, and nothing is written to the audit log.
        """
        with writing(self._engine) as connection:
            open_one = sa.update(KEYS).where(KEYS.c.id == key_id, KEYS.c.revoked.is_(None))
            # Of two concurrent revocations only one changes the row, and writes to the audit log.
            if connection.execute(open_one.values(revoked=entry.at)).rowcount:
                note(connection, entry)
            return _one(connection, KEYS.c.id == key_id)

    def list(self) -> list[ApiKey]:
        """Return every key that ever was, the oldest first."""
        with reading(self._engine) as connection:
            rows = connection.execute(sa.select(KEYS).order_by(KEYS.c.created, KEYS.c.id))
            return [ApiKey(**row) for row in rows.mappings()]

    def find(self, digest: str) -> ApiKey | None:
        """Return the key whose secret has this digest, also if it has been revoked."""
        with reading(self._engine) as connection:
            return _one(connection, KEYS.c.digest == digest)

    def has_any(self) -> bool:
        """Say whether there is a key that is not revoked."""
        with reading(self._engine) as connection:
            one = sa.select(KEYS.c.id).where(KEYS.c.revoked.is_(None)).limit(1)
            return connection.execute(one).first() is not None


def _one(connection: Connection, which: sa.ColumnElement[bool]) -> ApiKey | None:
    row = connection.execute(sa.select(KEYS).where(which)).mappings().one_or_none()
    return None if row is None else ApiKey(**row)
