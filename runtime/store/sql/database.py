"""Opening the store: SQLite, or PostgreSQL.

SQLite runs in WAL mode. What is committed survives the death of any process. It survives a power cut,
too, unless whoever opens the store does without: full synchronisation costs a commit some milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine

from runtime.errors import StoreError
from runtime.store.sql.checkpoints import AT_LATEST, Checkpoints
from runtime.store.sql.outage import unavailable
from runtime.store.sql.patience import ANSWER_SECONDS, UPGRADE_SECONDS, within
from runtime.store.sql.prepared import Direct, Prepared
from runtime.store.sql.urls import IN_MEMORY, make_folder, parsed
from runtime.store.sql.version import HEAD, version_of
from runtime.store.tables import PULSE


class Turn(IntEnum):
    """What processes take turns in: PostgreSQL's numbers of locks, which only have to be ours alone."""

    UPGRADE = 0x494C4B
    LEDGER = 0x494C4C
    SUMS = 0x494C4D


_ALONE = sa.select(sa.func.pg_advisory_xact_lock(sa.bindparam("turn")))
_TURN_ALONE = Prepared(_ALONE)
_TURN_TOGETHER = Prepared(sa.select(sa.func.pg_advisory_xact_lock_shared(sa.bindparam("turn"))))

_CLOCK = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))

_WRITES = "interlock_writes"

_PULSE_BYTES = 4096
"""What a look at the store writes: as much as a swap's events, which no compression makes less."""


def open_store(url: str, *, survives_power_cut: bool = True) -> Engine:
    """Return a database engine for ``url``, its tables brought to what this code works with.

    Raises:
        StoreError: no such kind of database, it cannot be reached, or a newer Interlock has changed it.

    """
    at = parsed(url)
    try:
        engine = _engine_of(at, "FULL" if survives_power_cut else "NORMAL")
        try:
            _bring_up_to_date(engine)
        except BaseException:
            engine.dispose()
            raise
    except (sa.exc.DBAPIError, OSError) as error:
        reason = " ".join(str(getattr(error, "orig", error)).split())
        raise StoreError(f"the store at {at!r} cannot be opened: {reason}") from error
    return engine


def insert_into(engine: Engine, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that can say what becomes of a row that is there: each database has its own."""
    return postgresql.insert(table) if engine.dialect.name == "postgresql" else sqlite.insert(table)


@contextmanager
def reading(engine: Engine, seconds: float = ANSWER_SECONDS) -> Iterator[Connection]:
    """Hold a connection to read by, for ``seconds`` at most.

    Raises:
        StoreUnavailable: the database does not answer in time, or at all.

    """
    with _answering(engine, seconds), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, seconds: float = ANSWER_SECONDS) -> Iterator[Connection]:
    """Hold a transaction that will write, committed at the end. Raises StoreUnavailable, as ``reading`` does.

    On SQLite it takes the write lock at once. One that read first and then wanted to write would be
    refused if somebody had written in between, without waiting.
    """
    with _answering(engine, seconds), engine.connect() as connection, begin_writing(connection):
        yield connection


@contextmanager
def writing_directly(engine: Engine, seconds: float = ANSWER_SECONDS) -> Iterator[Direct]:
    """Do as ``writing`` does, for prepared statements alone: SQLAlchemy's own work is left out."""
    with _answering(engine, seconds):
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            if engine.dialect.name == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")
            yield Direct(cursor, engine.dialect)
            connection.commit()
        except BaseException:
            if getattr(connection.driver_connection, "closed", False):
                connection.invalidate()  # there is nothing left that the pool could roll back
            raise
        finally:
            connection.close()  # to the pool, which rolls back what is not committed


@contextmanager
def begin_writing(connection: Connection) -> Iterator[None]:
    """Begin a transaction that will write on ``connection``; it is committed, or rolled back, at the end."""
    connection.execution_options(**{_WRITES: True})
    with connection.begin():
        yield


def ask(engine: Engine) -> None:
    """Return once the database has kept something: one that only reads is no store.

    Raises:
        StoreUnavailable: it does not answer, is read-only, or its disk is full.

    """
    filler = {"beats": PULSE.c.beats + 1, "filler": os.urandom(_PULSE_BYTES)}
    with writing(engine) as connection:
        connection.execute(sa.update(PULSE).where(PULSE.c.only == 1).values(filler))


def take_turns(direct: Direct, turn: Turn, *, alone: bool) -> None:
    """Wait until nobody else is in ``turn`` (or, if not ``alone``, nobody who is), to the transaction's end.

    On SQLite there is nothing to do: a transaction that writes is the only one.
    """
    if direct.dialect.name == "postgresql":
        (_TURN_ALONE if alone else _TURN_TOGETHER).rows(direct, turn=turn)


def take_turn_alone(connection: Connection, turn: Turn) -> None:
    """Do as ``take_turns`` does, alone, for a transaction of SQLAlchemy's."""
    if connection.dialect.name == "postgresql":
        connection.execute(_ALONE, {"turn": turn})


def clock_of(connection: Connection) -> float | None:
    """Return the time by the database's clock, in seconds since the Unix epoch.

    None of SQLite, which has no clock of its own: all its processes are on one node, and go by that node's.
    """
    if connection.dialect.name != "postgresql":
        return None
    return float(connection.execute(_CLOCK).scalar_one())


@contextmanager
def _answering(engine: Engine, seconds: float) -> Iterator[None]:
    """Bound the waits of a block, and keep outages of the database apart from errors in a row."""
    driver = engine.dialect.loaded_dbapi
    try:
        with within(seconds):
            yield
    except (sa.exc.IntegrityError, sa.exc.DataError, driver.IntegrityError, driver.DataError):
        raise
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, driver.Error) as error:
        raise unavailable(error) from error


def _engine_of(url: URL, synchronous: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        from runtime.store.sql.postgresql import open_postgresql  # noqa: PLC0415 - its driver is for it alone

        return open_postgresql(url)
    engine = sa.create_engine(url)
    if url.database and url.database not in IN_MEMORY:
        make_folder(url)
        checkpoints = Checkpoints(url.database)
        sa.event.listen(engine, "checkin", lambda *_: checkpoints.count())
    sa.event.listen(engine, "connect", lambda connection, _: _tune_sqlite(connection, synchronous))
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _tune_sqlite(connection: sa.PoolProxiedConnection, synchronous: str) -> None:
    # Python's module would begin transactions when it sees fit, and for tables not at all: we do.
    connection.isolation_level = None  # type: ignore[attr-defined]  # sqlite3's own attribute
    cursor = connection.cursor()
    # The patience first: several processes that open a new file all want to turn WAL on.
    pragmas = (f"busy_timeout={1000 * ANSWER_SECONDS:.0f}", "journal_mode=WAL", f"synchronous={synchronous}")
    for pragma in (*pragmas, f"wal_autocheckpoint={AT_LATEST}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _bring_up_to_date(engine: Engine) -> None:
    """Upgrade the tables, one process at a time; a database that is up to date costs two reads."""
    with within(ANSWER_SECONDS), engine.connect() as connection:
        if version_of(connection) == HEAD:
            return
    # Only a process that has to upgrade pays for alembic, and before it makes others wait.
    from runtime.store.sql.upgrade import upgrade  # noqa: PLC0415

    with within(UPGRADE_SECONDS), engine.connect() as connection, begin_writing(connection):
        if engine.dialect.name == "postgresql":
            from runtime.store.sql.postgresql import be_patient  # noqa: PLC0415 - as above

            be_patient(connection)
            connection.execute(_ALONE, {"turn": Turn.UPGRADE})
        upgrade(connection)
