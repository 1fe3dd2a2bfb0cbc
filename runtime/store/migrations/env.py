"""What alembic runs around the steps: in the caller's connection, and in its transaction."""

from __future__ import annotations

from alembic import context

# SQLite can take back a CREATE TABLE; alembic thinks it cannot, for Python's module long could not.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
