"""The audit log's table, written within the transaction that makes the change."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runtime.core.views.audit import AuditEntry
from runtime.store.tables import AUDIT


def note(connection: Connection, entry: AuditEntry) -> None:
    """Write ``entry``; it is in the log if the transaction is committed, and only then."""
    connection.execute(sa.insert(AUDIT).values(**entry.as_json()))
