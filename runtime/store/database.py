"""Opening the store: the one place that reads its URL and that tells SQLite from PostgreSQL.

SQLite runs in WAL mode. What is committed survives the death of any process. It survives a power cut,
too, unless whoever opens the store does without: full synchronisation costs a commit some milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url

from runtime.errors import StoreError, StoreUnavailable
from runtime.store.checkpoints import AT_LATEST, Checkpoints
from runtime.store.prepared import Direct, Prepared

HEAD = "0008"
"""The version of the tables that this code works with: the newest in ``runtime/store/migrations``."""

_VERSION = sa.table("alembic_version", sa.column("version_num"))


class Turn(IntEnum):
    """What processes take turns in: PostgreSQL's numbers of locks, which only have to be ours alone."""

    UPGRADE = 0x494C4B
    LEDGER = 0x494C4C


_ALONE = sa.select(sa.func.pg_advisory_xact_lock(sa.bindparam("turn")))
_TURN_ALONE = Prepared(_ALONE)
_TURN_TOGETHER = Prepared(sa.select(sa.func.pg_advisory_xact_lock_shared(sa.bindparam("turn"))))

_WRITES = "interlock_writes"
_EXAMPLES = "sqlite:////var/lib/interlock.db or postgresql://user:password@host/database"


def open_store(url: str, *, survives_power_cut: bool = True) -> Engine:
    """Return a database engine for ``url``, its tables brought to what this code works with.

    Raises:
        StoreError: no such kind of database, it cannot be reached, or a newer Interlock has changed it.

    """
    parsed = _parsed(url)
    try:
        engine = _engine_of(parsed, "FULL" if survives_power_cut else "NORMAL")
        try:
            _bring_up_to_date(engine)
        except BaseException:
            engine.dispose()
            raise
    except (sa.exc.DBAPIError, OSError) as error:
        reason = str(getattr(error, "orig", error)).strip()
        raise StoreError(f"the store at {parsed!r} cannot be opened: {reason}") from error
    return engine


def check_shared(url: str, nodes: int) -> None:
    """Refuse a store that only one of ``nodes`` can read: on another, a manager would find nothing.

    Raises:
        StoreError: SQLite, and more than one node.

    """
    if nodes > 1 and _parsed(url).get_backend_name() == "sqlite":
        raise StoreError(
            f"INTERLOCK_STORE_URL is SQLite, which is for one node, and this cluster has {nodes}; "
            "set it to a PostgreSQL database on every node: postgresql://user:password@host/database"
        )


def insert_into(engine: Engine, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that can say what becomes of a row that is there: each database has its own."""
    return postgresql.insert(table) if engine.dialect.name == "postgresql" else sqlite.insert(table)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Hold a connection to read by. Raises StoreUnavailable if the database does not answer."""
    with _answering(engine), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Hold a transaction that will write, committed at the end. Raises StoreUnavailable.

    On SQLite it takes the write lock at once. One that read first and then wanted to write would be
    refused if somebody had written in between, without waiting.
    """
    with _answering(engine), engine.connect() as connection, begin_writing(connection):
        yield connection


@contextmanager
def writing_directly(engine: Engine) -> Iterator[Direct]:
    """Do as ``writing`` does, for prepared statements alone: SQLAlchemy's own work is left out."""
    with _answering(engine):
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            if engine.dialect.name == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")
            yield Direct(cursor, engine.dialect)
            connection.commit()
        finally:
            connection.close()  # to the pool, which rolls back what is not committed


@contextmanager
def begin_writing(connection: Connection) -> Iterator[None]:
    """Begin a transaction that will write on ``connection``; it is committed, or rolled back, at the end."""
    connection.execution_options(**{_WRITES: True})
    with connection.begin():
        yield


def ask(engine: Engine) -> None:
    """Return once the database has answered. Raises StoreUnavailable."""
    with reading(engine) as connection:
        connection.execute(sa.select(1))


def take_turns(direct: Direct, turn: Turn, *, alone: bool) -> None:
    """Wait until nobody else is in ``turn`` (or, if not ``alone``, nobody who is), to the transaction's end.

    On SQLite there is nothing to do: a transaction that writes is the only one.
    """
    if direct.dialect.name == "postgresql":
        (_TURN_ALONE if alone else _TURN_TOGETHER).rows(direct, turn=turn)


@contextmanager
def _answering(engine: Engine) -> Iterator[None]:
    driver = engine.dialect.loaded_dbapi
    try:
        yield
    except (
        *(sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError),
        *(driver.OperationalError, driver.InterfaceError),
    ) as error:
        raise StoreUnavailable(f"the store does not answer: {getattr(error, 'orig', error)}") from error


def _parsed(url: str) -> URL:
    """Return ``url`` with the driver that is installed and, for SQLite, the file's whole path."""
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError as error:  # its message would repeat the URL, and so a password
        raise StoreError(f"INTERLOCK_STORE_URL is not a URL; it is like {_EXAMPLES}") from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed.set(database=str(Path(parsed.database).expanduser()))
        case "sqlite":
            return parsed
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"INTERLOCK_STORE_URL names {parsed.drivername!r}; it must be like {_EXAMPLES}")


def _engine_of(url: URL, synchronous: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)  # the server may have been restarted
    engine = sa.create_engine(url)
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
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
    told = ("busy_timeout=10000", "journal_mode=WAL", f"synchronous={synchronous}")
    for pragma in (*told, f"wal_autocheckpoint={AT_LATEST}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _bring_up_to_date(engine: Engine) -> None:
    """Upgrade the tables, one process at a time; a database that is up to date costs two reads."""
    with engine.connect() as connection:
        if version_of(connection) == HEAD:
            return
    # Only a process that has to upgrade pays for alembic, and before it makes others wait.
    from runtime.store.upgrade import upgrade  # noqa: PLC0415

    with engine.connect() as connection, begin_writing(connection):
        if engine.dialect.name == "postgresql":
            connection.execute(_ALONE, {"turn": Turn.UPGRADE})
        upgrade(connection)


def version_of(connection: Connection) -> str | None:
    """Return the version of the tables in the database; None of one that has none yet."""
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    version = connection.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()
    return None if version is None else str(version)
