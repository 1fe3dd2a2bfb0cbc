"""Opening the store: its tables are brought up to date once, whoever comes, and never half."""

import subprocess
import sys
import time

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from runtime.errors import StoreError, StoreUnavailable
from runtime.store.journal import Journal
from runtime.store.sql import urls
from runtime.store.sql.database import open_store, reading, writing
from runtime.store.sql.upgrade import known_versions, migrations
from runtime.store.sql.version import HEAD, version_of
from runtime.store.tables import JOURNAL, METADATA

OPEN_IT = """
import sys
import runtime.store.sql.upgrade
from runtime.store.sql.database import open_store
from runtime.store.journal import Journal

print("ready", flush=True)
sys.stdin.readline()
journal = Journal(open_store(sys.argv[1]))
print(journal.epoch, flush=True)
journal._engine.dispose()
"""


def tables(engine):
    return set(sa.inspect(engine).get_table_names())


def set_version(engine, version):
    with engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = :v"), {"v": version})


# What the migrations make is what the code declares, table by table and column by column.
def test_migrations_make_what_is_declared(store_url):
    engine = open_store(store_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, METADATA) == []
        assert version_of(connection) == HEAD
    engine.dispose()


# The code works with the newest version that there is a step to, and there is one way to it.
def test_head_is_the_newest():
    assert ScriptDirectory.from_config(migrations()).get_heads() == [HEAD]
    assert HEAD in known_versions(migrations())


# A database that was made before there were versions is taken as it is, with what is in it.
def test_adopts_a_database_without_a_version(store_url):
    old = sa.create_engine(store_url)
    first_tables = [METADATA.tables[name] for name in ("journal", "audit", "epoch")]
    METADATA.create_all(old, first_tables)
    with old.begin() as connection:
        connection.execute(sa.insert(JOURNAL).values(revision=1, epoch=7, event="{}"))
        connection.execute(sa.text("insert into epoch (id, epoch) values (1, 7)"))
    old.dispose()
    engine = open_store(store_url)
    with reading(engine) as connection:
        assert connection.execute(sa.select(JOURNAL)).all() == [(1, 7, "{}")]
        assert version_of(connection) == HEAD
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    assert Journal(engine, lambda: 0.0).epoch == 8
    engine.dispose()


# A database that a newer Interlock has changed is refused, with what to do, and is left as it is.
def test_newer_database_is_refused(engine, store_url):
    set_version(engine, "9999")
    with pytest.raises(StoreError, match=r"version 9999.*newer.*INTERLOCK_STORE_URL"):
        open_store(store_url)
    with reading(engine) as connection:
        assert version_of(connection) == "9999"


# An upgrade that fails half-way leaves nothing of itself, also of the tables that it had made.
def test_upgrade_is_all_or_nothing(store_url, monkeypatch):
    from alembic import op

    def fail(statement):
        raise RuntimeError(statement)

    monkeypatch.setattr(op, "execute", fail)
    with pytest.raises(RuntimeError, match="epoch"):
        open_store(store_url)
    plain = sa.create_engine(store_url)
    assert tables(plain) == set()
    plain.dispose()
    monkeypatch.undo()
    engine = open_store(store_url)
    assert tables(engine) >= {"journal", "audit", "epoch"}
    engine.dispose()


# A process that comes while another upgrades waits for it, and then finds its work done.
@pytest.mark.store
def test_processes_that_start_together(store_url, monkeypatch):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    late = subprocess.Popen([sys.executable, "-c", OPEN_IT, store_url], **pipes)
    assert late.stdout.readline() == "ready\n"
    upgrade = command.upgrade

    def upgrade_and_be_slow(config, head):
        upgrade(config, head)
        late.stdin.write("\n")
        late.stdin.flush()
        time.sleep(0.5)

    monkeypatch.setattr(command, "upgrade", upgrade_and_be_slow)
    journal = Journal(open_store(store_url))
    epochs = {journal.epoch, int(late.communicate(timeout=60)[0])}
    journal._engine.dispose()
    assert len(epochs) == 2


# A process that finds its database up to date does not import alembic.
def test_up_to_date_is_cheap(tmp_path):
    store_url = f"sqlite:///{tmp_path}/interlock.db"
    open_store(store_url).dispose()
    code = (
        "import sys; from runtime.store.sql.database import open_store; open_store(sys.argv[1]).dispose(); "
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, store_url], check=False, timeout=60).returncode == 0


# In SQLite a transaction that writes may read first: nobody can write in between and have it refused.
def test_writing_reads_first(tmp_path):
    engine = open_store(f"sqlite:///{tmp_path}/interlock.db")
    with writing(engine) as connection, engine.connect() as other:
        before = connection.execute(sa.text("select epoch from epoch")).scalar_one()
        other.exec_driver_sql("PRAGMA busy_timeout=1")
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            other.execute(sa.text("update epoch set epoch = 99"))
        connection.execute(sa.text("update epoch set epoch = :e"), {"e": before + 1})
    with reading(engine) as connection:
        assert connection.execute(sa.text("select epoch from epoch")).scalar_one() == before + 1
    engine.dispose()


# What is not committed because of an error is not there.
def test_writing_rolls_back(engine):
    with pytest.raises(ZeroDivisionError):
        change_and_fail(engine)
    with reading(engine) as connection:
        assert connection.execute(sa.text("select epoch from epoch")).scalar_one() == 0


def change_and_fail(engine):
    with writing(engine) as connection:
        connection.execute(sa.text("update epoch set epoch = 99"))
        raise ZeroDivisionError


# A server that goes away is nobody's fault, and once it is back the next call finds it.
@pytest.mark.store
def test_no_answer_is_unavailable(postgresql):
    url = postgresql()
    engine, other = open_store(url), open_store(url)
    with pytest.raises(StoreUnavailable, match="does not answer"), reading(engine) as connection:
        lose(connection, other)
    with reading(engine) as connection:
        assert version_of(connection) == HEAD
    for opened in (engine, other):
        opened.dispose()


def lose(connection, other):
    """Let the server end ``connection``, then use it."""
    end_connection(connection.execute(sa.text("select pg_backend_pid()")).scalar_one(), other)
    connection.execute(sa.text("select 1"))


def end_connection(number, other):
    """Let the server end the connection that it knows by this number."""
    with other.begin() as killer:
        killer.execute(sa.text("select pg_terminate_backend(:n, 5000)"), {"n": number})


# A URL that cannot be used is refused with what it must be like, and without the password in it.
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("secret-nonsense", "is not a URL; it is like sqlite:///"),
        ("mysql://root:secret@host/db", "names 'mysql'; it must be like sqlite:///"),
        ("postgresql://ann:secret@127.0.0.1:1/db", "postgresql.*ann:.*@127.0.0.1:1/db cannot be opened: "),
        ("sqlite:////proc/secret-less/x.db", "the store's folder /proc/secret-less cannot be made: "),
    ],
)
def test_bad_urls(url, told):
    with pytest.raises(StoreError, match=told) as refused:
        open_store(url)
    assert "secret@" not in str(refused.value)
    assert "secret-nonsense" not in str(refused.value)


# The names that others give to PostgreSQL all mean the driver that is installed.
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_schemes(scheme):
    assert urls.parsed(f"{scheme}://host/db").drivername == "postgresql+psycopg"


# SQLite is refused where several nodes would each have a file of their own; PostgreSQL is not.
def test_a_store_is_shared_by_all_nodes():
    urls.check_shared("sqlite:////store.db", 1)
    urls.check_shared("postgresql://host/db", 3)
    with pytest.raises(StoreError, match="this cluster has 3"):
        urls.check_shared("sqlite:////store.db", 3)


# A file that each process would look for from its own folder is refused, and so is what is no file: Ray's
# folder is nobody's choice, and an empty store has no keys.
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///x.db", "'x.db' from whichever folder Ray was started in.*whole path"),
        ("sqlite:///./a/x.db", "'./a/x.db' from whichever folder"),
        ("sqlite://x.db", "from whichever folder"),
        ("sqlite:///file:x?mode=memory&uri=true", "from whichever folder"),
        ("sqlite:///~nobody-here/x.db", "write the whole path"),
        ("sqlite:////tmp", "names the folder /tmp; name a file in it"),
        ("sqlite:////dev/null/x.db", "the store's folder /dev/null cannot be made: File exists"),
    ],
)
def test_files_that_are_none(url, told):
    with pytest.raises(StoreError, match=told):
        open_store(url)


# The whole application is not built on a store that each process would have for itself.
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///x.db"])
def test_a_store_outlasts_its_process(url):
    with pytest.raises(StoreError, match=r"write its whole path|database in memory"):
        urls.check_lasting(url)
    urls.check_lasting("sqlite:////x.db")


# A file that holds something else is told as that.
def test_a_file_of_something_else(tmp_path):
    (tmp_path / "x.db").write_bytes(b"these are no pages" * 300)
    with pytest.raises(StoreError, match="cannot be opened: file is not a database"):
        open_store(f"sqlite:///{tmp_path}/x.db")
