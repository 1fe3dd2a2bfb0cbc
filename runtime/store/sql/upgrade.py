"""Bringing the store's tables from any earlier version to the newest, by alembic."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from runtime.errors import StoreError
from runtime.store.sql.version import HEAD, version_of


def upgrade(connection: Connection) -> None:
    """Bring the tables to ``HEAD`` in the transaction that ``connection`` is in: all steps or none.

    Raises:
        StoreError: a newer Interlock has changed the database. Nothing was changed.

    """
    config = migrations()
    version = version_of(connection)
    if version is not None and version not in known_versions(config):
        raise StoreError(
            f"the store is of version {version}, and this Interlock knows versions up to {HEAD} only: "
            "a newer one has used it; run that one, or set INTERLOCK_STORE_URL to another database"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def migrations() -> Config:
    """Return alembic's configuration: where the steps are. There is no file for it."""
    config = Config()
    config.set_main_option("script_location", "runtime.store:migrations")
    return config


def known_versions(config: Config) -> set[str]:
    """Return every version that there is a step to."""
    return {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
