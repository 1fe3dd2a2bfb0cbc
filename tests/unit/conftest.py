"""Fixtures of the tests that need no cluster, no sockets and no waiting: time is virtual."""

import functools
import itertools
from pathlib import Path

import pytest
import typer.main
import typer.testing
from hypothesis import settings
from sqlalchemy.engine import make_url

from runtime.store.sql.database import open_store
from tests.unit.fresh_store import migrated_image

HERE = Path(__file__).parent

settings.register_profile("unit", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("unit")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("looptime") is None:
            item.add_marker(pytest.mark.looptime(start=1000.0, noop_cycles=2))


@pytest.fixture(scope="session", autouse=True)
def _commands_read_once():
    """Read each application's commands from their functions once: that takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def postgresql():
    """A real PostgreSQL of this test process; returns a function that makes an empty database's URL."""
    import psycopg

    from benchmarks.parts.local_postgresql import local_postgresql

    numbers = itertools.count()
    with local_postgresql() as server:

        def empty():
            name = f"test{next(numbers)}"
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"create database {name}")
            return server.get_uri(database=name, driver="psycopg")

        yield empty


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.store)])
def store_url(request, tmp_path):
    """An empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/interlock.db"
    return request.getfixturevalue("postgresql")()


@pytest.fixture
def engine(store_url):
    """An opened store, of each kind; a SQLite file is copied from one that the migrations have made."""
    if (path := make_url(store_url)).get_backend_name() == "sqlite":
        Path(path.database).write_bytes(migrated_image())
    engine = open_store(store_url, survives_power_cut=False)
    yield engine
    engine.dispose()
