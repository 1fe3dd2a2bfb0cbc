"""Connections to PostgreSQL that wait for nothing without a limit, on either side.

This end gives up when its thread's patience is over (``store.sql.patience``): it closes the connection, for
nobody knows what has become of the statement. The server gives up what a client that is gone waits for or
holds, so that no lock outlives the gateway that took it.
"""

from __future__ import annotations

import math
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.abc import RV, PQGen
from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.pool import ConnectionPoolEntry

from runtime.store.sql.patience import ANSWER_SECONDS, REPORT_SECONDS, left, within

_PING_SECONDS = 2.0
"""How long a connection that was kept may take to answer; then there is time left to make a new one."""

_CONNECT_SECONDS = 3.0

_TCP = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
"""A host that is gone is noticed within a dozen seconds. The URL may override these."""

_OF_SESSION = {
    "lock_timeout": ANSWER_SECONDS,
    "statement_timeout": REPORT_SECONDS,
    "idle_in_transaction_session_timeout": 2 * ANSWER_SECONDS,
}
"""Seconds. Set after connecting, for some poolers refuse unknown parameters in the startup message."""

_SET = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS setting(name, value)"

_NEW = "interlock_new"


class PatientConnection(psycopg.Connection[Any]):
    """A connection whose waits end with its thread's patience, and which is closed by that."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server. Raises OperationalError once the patience is over."""
        limit = left() if timeout is None else min(timeout, left())
        try:
            return super().wait(gen, interval, limit)
        except psycopg.OperationalError as error:
            if left() > 0.0 or error.sqlstate is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError("the server did not answer in time") from error


def open_postgresql(url: URL) -> Engine:
    """Return an engine for the server that ``url`` names; nothing is asked yet."""
    engine = sa.create_engine(url, pool_timeout=_CONNECT_SECONDS)
    sa.event.listen(engine, "do_connect", _connect)
    sa.event.listen(engine, "connect", lambda _, entry: entry.info.update({_NEW: True}))
    sa.event.listen(engine, "checkout", lambda connection, entry, _: _ping(connection, entry))
    return engine


def be_patient(connection: sa.Connection) -> None:
    """Let the server wait for locks and work on statements without a limit, in this transaction alone."""
    for name in ("lock_timeout", "statement_timeout"):
        connection.exec_driver_sql(f"SET LOCAL {name} = 0")


def _connect(
    _dialect: Dialect, _entry: ConnectionPoolEntry, args: Any, parameters: dict[str, Any]
) -> PatientConnection:
    time = left()
    if time <= 0.0:
        raise psycopg.OperationalError("the server did not answer in time")
    limit = {"connect_timeout": math.ceil(min(time, _CONNECT_SECONDS))}
    connection = PatientConnection.connect(*args, **{**_TCP, **limit, **parameters})
    try:
        connection.autocommit = True
        connection.execute(_SET, (list(_OF_SESSION), [f"{1000 * s:.0f}" for s in _OF_SESSION.values()]))
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def _ping(connection: Any, entry: ConnectionPoolEntry) -> None:
    """See that a connection that was kept still leads to a server; it may have been restarted.

    Raises InvalidatePoolError: the pool makes a new one, and throws all others away.
    """
    if entry.info.pop(_NEW, False):
        return
    try:
        with within(_PING_SECONDS), connection.cursor() as cursor:
            cursor.execute(";")
    except psycopg.Error as error:
        raise sa.exc.InvalidatePoolError from error
