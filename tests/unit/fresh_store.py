"""A store for each test, without running its migrations each time."""

import functools

from sqlalchemy.engine import make_url

from runtime.store.sql.database import _engine_of, open_store

_STATEMENTS = {}
"""What SQLAlchemy has compiled, for all stores: compiling costs more than running on a few rows."""


def fresh_store():
    """Return an empty store of this process's own, as ``open_store`` makes it, copied from a first one."""
    engine = _engine_of(make_url("sqlite://"), "NORMAL")
    engine.dialect = _dialect()  # what is compiled is of a dialect, too
    engine.update_execution_options(compiled_cache=_STATEMENTS)
    with engine.connect() as connection:
        connection.connection.driver_connection.deserialize(migrated_image())
    return engine


@functools.cache
def _dialect():
    engine = _engine_of(make_url("sqlite://"), "NORMAL")
    engine.connect().close()  # a dialect is complete once it has met its database
    engine.dispose()
    return engine.dialect


@functools.cache
def migrated_image():
    """Return what a SQLite file holds that all migrations have just made."""
    engine = open_store("sqlite://")
    with engine.connect() as connection:
        image = connection.connection.driver_connection.serialize()
    engine.dispose()
    return image
