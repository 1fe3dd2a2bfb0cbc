"""What the store's URL may be: one sentence for each that it may not, before anything is opened."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from runtime.errors import StoreError

_EXAMPLES = "sqlite:////var/lib/interlock.db or postgresql://user:password@host/database"

IN_MEMORY = ("", ":memory:")
"""What SQLite takes for a database in its process's own memory."""


def parsed(url: str) -> URL:
    """Return ``url`` with the driver that is installed and, for SQLite, the file's whole path.

    Raises:
        StoreError: no URL, no such kind of database, or a file that each process would look for elsewhere.

    """
    try:
        found = make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:  # its message would repeat the URL, and so a password
        raise StoreError(f"INTERLOCK_STORE_URL is not a URL; it is like {_EXAMPLES}") from error
    match found.get_backend_name():
        case "sqlite" if (found.database or "") in IN_MEMORY and not found.host:
            return found
        case "sqlite":
            return found.set(drivername="sqlite", database=str(_file_of(found)))
        case "postgresql" | "postgres":
            return found.set(drivername="postgresql+psycopg")
    raise StoreError(f"INTERLOCK_STORE_URL names {found.drivername!r}; it must be like {_EXAMPLES}")


def check_lasting(url: str) -> None:
    """Refuse a store that only one process would see, and that would be gone with it.

    Raises:
        StoreError: as ``parsed`` does, and for a database in memory.

    """
    found = parsed(url)
    if found.get_backend_name() == "sqlite" and (found.database or "") in IN_MEMORY:
        raise StoreError(
            "INTERLOCK_STORE_URL is a database in memory: every gateway would have one of its own, without "
            f"keys and budgets; name a file or a server, like {_EXAMPLES}"
        )


def check_shared(url: str, nodes: int) -> None:
    """Refuse a store that only one of ``nodes`` can read: on another, a manager would find nothing.

    Raises:
        StoreError: SQLite, and more than one node.

    """
    if nodes > 1 and parsed(url).get_backend_name() == "sqlite":
        raise StoreError(
            f"INTERLOCK_STORE_URL is SQLite, which is for one node, and this cluster has {nodes}; "
            "set it to a PostgreSQL database on every node: postgresql://user:password@host/database"
        )


def make_folder(url: URL) -> None:
    """Make the folder of SQLite's file where it is missing, and see that the file can be written there.

    Raises:
        StoreError: something else is in its place, or this process may not write it.

    """
    file = Path(url.database or "")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the store's folder {file.parent} cannot be made: {error.strerror}") from error
    if file.is_dir():
        raise StoreError(f"INTERLOCK_STORE_URL names the folder {file}; name a file in it, like {file}/x.db")
    # SQLite keeps its log beside the file: it must write the folder, too.
    for place in (file.parent, *([file] if file.exists() else [])):
        if not os.access(place, os.W_OK):
            raise StoreError(f"the store {file} cannot be opened: this process may not write {place}")


def _file_of(url: URL) -> Path:
    try:
        file = Path(url.database or "").expanduser()
    except RuntimeError as error:
        raise StoreError(f"INTERLOCK_STORE_URL: {error}; write the whole path, like {_EXAMPLES}") from error
    if url.host or not file.is_absolute():
        raise StoreError(
            f"INTERLOCK_STORE_URL names the file {url.database!r} from whichever folder Ray was started in, "
            f"where an empty store would be made, without keys; write its whole path, with four slashes: "
            f"{_EXAMPLES}"
        )
    return file
