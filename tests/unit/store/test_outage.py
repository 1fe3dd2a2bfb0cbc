"""A database that is away, frozen, read-only or full: every wait for it ends, and is nobody's fault."""

import os
import signal
import socket
import sqlite3
import time
from contextlib import contextmanager

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from runtime.core.swap import events as ev
from runtime.errors import StoreError, StoreUnavailable
from runtime.store.journal import Journal
from runtime.store.sql import database, patience
from runtime.store.sql import postgresql as limits
from runtime.store.sql.database import open_store, reading, writing, writing_directly
from runtime.store.sql.patience import left, within
from tests.unit.fresh_store import fresh_store

EVENT = ev.EngineFound(at=1.0, engine="e")

ADDRESS = 'connection to server at "10.9.8.7", port 5432 failed'


def raised(error):
    """Return what a client is told of a driver's error."""
    store = fresh_store()
    store.dialect = sa.create_engine("postgresql+psycopg://host/db").dialect
    with pytest.raises(StoreUnavailable) as told, database._answering(store, 1.0):
        raise error
    return told.value


# Whatever a database says other than that a row is wrong is nobody's fault: a 503, which tells clients
# nothing of where it is, and operators everything.
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (psycopg.OperationalError(ADDRESS), "the store does not answer"),
        (psycopg.errors.ReadOnlySqlTransaction(ADDRESS), "the store is read-only"),
        (psycopg.errors.DiskFull(ADDRESS), "the store cannot write to its disk"),
        (psycopg.errors.LockNotAvailable(ADDRESS), "the store does not answer"),
        (psycopg.errors.QueryCanceled(ADDRESS), "the store does not answer"),
        (psycopg.errors.DeadlockDetected(ADDRESS), "the store does not answer"),
        (psycopg.errors.AdminShutdown(ADDRESS), "the store does not answer"),
        (psycopg.errors.InFailedSqlTransaction(ADDRESS), "the store does not answer"),
        (psycopg.errors.DuplicatePreparedStatement(ADDRESS), "the store does not answer"),
        (psycopg.errors.ProtocolViolation(ADDRESS), "the store does not answer"),
        (psycopg.InternalError(ADDRESS), "the store does not answer"),
        (psycopg.errors.UndefinedTable(ADDRESS), "the store does not answer"),
        (sa.exc.TimeoutError(ADDRESS), "the store does not answer"),
        (sa.exc.InternalError("", {}, psycopg.InternalError(ADDRESS)), "the store does not answer"),
    ],
)
def test_errors_of_the_database(error, told):
    unavailable = raised(error)
    assert str(unavailable) == told
    assert ADDRESS in unavailable.detail


# A row that does not fit is a mistake of ours, and stays one.
@pytest.mark.parametrize("error", [sqlite3.IntegrityError, sqlite3.DataError])
def test_errors_of_rows(error):
    with pytest.raises(error), database._answering(fresh_store(), 1.0):
        raise error("no such row")


# SQLite's own: a file that may not be written, and a disk that is full, are told as that.
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (sqlite3.OperationalError("attempt to write a readonly database"), "is read-only"),
        (sqlite3.OperationalError("database or disk is full"), "cannot write to its disk"),
        (sqlite3.OperationalError("database is locked"), "does not answer"),
        (sqlite3.DatabaseError("database disk image is malformed"), "does not answer"),
    ],
)
def test_errors_of_sqlite(error, told):
    with pytest.raises(StoreUnavailable, match=told), database._answering(fresh_store(), 1.0):
        raise error


# A look at the store writes: one that can only be read, or whose disk is full, is told as unwell.
@pytest.mark.parametrize(
    ("pragma", "told"), [("query_only=1", "read-only"), ("max_page_count=1", "cannot write to its disk")]
)
def test_a_look_writes(tmp_path, pragma, told):
    engine = open_store(f"sqlite:///{tmp_path}/x.db")
    database.ask(engine)
    sa.event.listen(engine, "checkout", lambda connection, *_: connection.execute(f"PRAGMA {pragma}"))
    with pytest.raises(StoreUnavailable, match=told):
        look_and_grow(engine)
    engine.dispose()


def look_and_grow(engine):
    """Pages that are free already can be written on a full disk, so there must be none."""
    for _ in range(100):
        database.ask(engine)
        with writing(engine) as connection:
            connection.execute(sa.text("insert into audit values (null, 1, 1, 1, 1, 1, 1, zeroblob(9000))"))


# Patience is one for all waits of a block, and a block within another has no more than is left of that.
def test_patience():
    with within(10.0), within(100.0):
        assert 9.0 < left() <= 10.0
        with within(0.0):
            assert left() == 0.0
        assert left() > 9.0
    assert left() == patience.ANSWER_SECONDS


# A server that takes connections and never says a word is given up within seconds.
def test_a_server_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        with pytest.raises(StoreError, match=f"127.0.0.1:{server.getsockname()[1]}/db cannot be opened"):
            open_store(f"postgresql://ann:secret@127.0.0.1:{server.getsockname()[1]}/db")
        assert time.monotonic() - begun < patience.ANSWER_SECONDS


@pytest.fixture
def server(postgresql):
    """An opened store on PostgreSQL."""
    engine = open_store(postgresql())
    yield engine
    engine.dispose()


@contextmanager
def frozen(engine):
    """Stop every process of the server, as when its host hangs: its kernel goes on taking what is sent."""
    with reading(engine) as connection:
        backend = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
    postmaster = psutil.Process(backend).parent()
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)


def took(seconds, call):
    """Return whether a call is told that the store is away, within so many seconds."""
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        call()
    return time.monotonic() - begun < seconds


# A server whose host is frozen is noticed by who waits for it, reading or writing, and used again after.
@pytest.mark.store
def test_a_frozen_server(server):
    journal = Journal(server)
    with frozen(server):
        assert took(3.0, lambda: write_within(server, 1.0))
        assert took(3.0, lambda: write_directly_within(server, 1.0))
        assert took(patience.ANSWER_SECONDS + 2.0, lambda: journal.append(1, EVENT))
    journal.append(1, EVENT)
    assert len(list(journal.replay())) == 1


def write_within(engine, seconds):
    with writing(engine, seconds) as connection:
        connection.execute(sa.text("select 1"))


def write_directly_within(engine, seconds):
    with writing_directly(engine, seconds) as direct:
        direct.cursor.execute("select 1")


# A server that freezes amid a transaction is noticed there, too, and the pool is left with no trace of it.
@pytest.mark.store
def test_it_freezes_amid_a_transaction(server, caplog):
    with frozen(server):
        pass
    with pytest.raises(StoreUnavailable), writing_directly(server, 1.0) as direct, frozen(server):
        direct.cursor.execute("select 1")
    with pytest.raises(StoreUnavailable), writing(server, 1.0) as connection, frozen(server):
        connection.execute(sa.text("select 1"))
    with reading(server) as connection:
        assert connection.execute(sa.text("select 1")).scalar_one() == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# While the server takes no writes (a fail-over, a full disk) reading goes on, writing waits its turn, and
# the same manager goes on writing when it does again.
@pytest.mark.store
def test_a_read_only_server(server):
    journal = Journal(server)
    read_only(server, "on")
    with pytest.raises(StoreUnavailable, match=r"^the store is read-only$"):
        journal.append(1, EVENT)
    with pytest.raises(StoreUnavailable, match=r"^the store is read-only$"):
        database.ask(server)
    with pytest.raises(StoreUnavailable, match=r"^the store is read-only$"):
        lock_counters(server)
    assert list(journal.replay()) == []
    read_only(server, "off")
    journal.append(1, EVENT)
    database.ask(server)


def lock_counters(engine):
    with writing_directly(engine) as direct:
        direct.cursor.execute("select * from counters for update")


def read_only(engine, value):
    """Let every new session of the database begin its transactions so; those that there are end."""
    name = engine.url.database
    with psycopg.connect(
        engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        connection.autocommit = True
        connection.execute("set default_transaction_read_only = off")
        connection.execute(f"alter database {name} set default_transaction_read_only = {value}")
    engine.dispose()


# Who waits for a row that somebody holds is told so in time; the holder, silent for too long, is ended.
@pytest.mark.store
def test_locks_end(postgresql, monkeypatch):
    monkeypatch.setitem(limits._OF_SESSION, "lock_timeout", 0.3)
    monkeypatch.setitem(limits._OF_SESSION, "idle_in_transaction_session_timeout", 1.0)
    url = postgresql()
    engine, other = open_store(url), open_store(url)
    with pytest.raises(StoreUnavailable):
        hold_for_too_long(other, lambda: Journal(engine))
    assert Journal(engine, lambda: 0.0).epoch == 1
    for opened in (engine, other):
        opened.dispose()


def hold_for_too_long(engine, meanwhile):
    with writing(engine) as holder:
        holder.execute(sa.text("update epoch set epoch = 7"))
        assert took(1.0, meanwhile)
        time.sleep(1.0)
        holder.execute(sa.text("select 1"))
