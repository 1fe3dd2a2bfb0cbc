"""A store in memory for each test, without running its migrations each time."""

import functools

from sqlalchemy.engine import make_url

from runtime.store.database import _engine_of, open_store


def fresh_store():
    """Return an empty store of this process's own, as ``open_store`` makes it, copied from a first one."""
    engine = _engine_of(make_url("sqlite://"), "NORMAL")
    with engine.connect() as connection:
        connection.connection.driver_connection.deserialize(_migrated())
    return engine


@functools.cache
def _migrated():
    engine = open_store("sqlite://")
    with engine.connect() as connection:
        image = connection.connection.driver_connection.serialize()
    engine.dispose()
    return image
